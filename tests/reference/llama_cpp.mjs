// Greedy tokens and ids of texts by llama.cpp: {"file", "prompt": [ids], "count", "texts"} in, {"greedy", "tokenized"} out.
import {getLlama, LlamaLogLevel} from "node-llama-cpp";
import {readFileSync} from "node:fs";

const {file, prompt, count, texts} = JSON.parse(readFileSync(0, "utf8"));
let out;
try {
    const llama = await getLlama({build: "never", gpu: false, logLevel: LlamaLogLevel.error});
    const model = await llama.loadModel({modelPath: file});
    const context = await model.createContext({contextSize: Math.min(256, model.trainContextSize)});
    const greedy = [];
    // An end of text is a token like any other here.
    for await (const token of context.getSequence().evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
        greedy.push(token);
        if (greedy.length >= count) break;
    }
    out = {greedy, tokenized: texts.map((text) => model.tokenize(text, true))};
} catch (error) {
    out = {error: String(error)};
}
process.stdout.write(JSON.stringify(out) + "\n", () => process.exit(0));
