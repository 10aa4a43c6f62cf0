// Ids of texts by llama.cpp: {"texts": [..], "files": {name: path}} in, {name: ids or null} out.
import {getLlama, LlamaLogLevel} from "node-llama-cpp";
import {readFileSync} from "node:fs";

const {texts, files} = JSON.parse(readFileSync(0, "utf8"));
const llama = await getLlama({build: "never", gpu: false, logLevel: LlamaLogLevel.disabled});
const out = {};
for (const [name, modelPath] of Object.entries(files)) {
    try {
        const model = await llama.loadModel({modelPath, vocabOnly: true});
        out[name] = texts.map((text) => model.tokenize(text, true));
        await model.dispose();
    } catch (error) {
        out[name] = null;
    }
}
process.stdout.write(JSON.stringify(out) + "\n", () => process.exit(0));
