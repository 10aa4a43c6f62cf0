//! Chat templates as transformers renders them (`tests/golden/chat`), and conversations with their answers told apart.

use super::golden::{folder, lists};
use super::program::{fails, stdout};
use super::real::real;
use super::train::{config, log, trained};
use limber::text::{ChatTemplate, Message, Speaker, Tokenizer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn messages(value: &Value) -> Vec<Message> {
    let one = |message: &Value| {
        let role = match message["role"].as_str().unwrap() {
            "system" => Speaker::System,
            "user" => Speaker::User,
            _ => Speaker::Assistant,
        };
        Message::new(role, message["content"].as_str().unwrap())
    };
    value.as_array().unwrap().iter().map(one).collect()
}

/// How many of the cases are rendered, or refused, as transformers does it.
fn compared(all: &Value) -> usize {
    let special =
        [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, token)| (name.to_string(), token.to_string()));
    let cases = all["cases"].as_array().unwrap();
    for case in cases {
        let name = case["template"].as_str().unwrap();
        let template = all["templates"][name].as_str().unwrap();
        let template = ChatTemplate::new(template, BTreeMap::from(special.clone())).unwrap();
        let told = template.render(&messages(&case["messages"]), case["generation_prompt"] == json!(true));
        match case["text"].as_str() {
            Some(text) => assert_eq!(told.unwrap(), text, "{name}: {}", case["messages"]),
            None => {
                let message = told.unwrap_err().to_string();
                assert!(message.ends_with(case["error"].as_str().unwrap()), "{name}: {message}");
            }
        }
    }
    cases.len()
}

#[test]
fn templates_render_as_transformers_renders_them() {
    assert_eq!(compared(&lists("chat")), 112);
}

#[test]
fn published_templates_render_as_transformers_renders_them() {
    let Some(path) = real("published chat templates").map(|real| real.join("chat/expected.json")) else { return };
    // `tests/real/chat.py` writes it, of the templates beside it.
    let Ok(text) = fs::read_to_string(&path) else { return eprintln!("skipped: there is no {}", path.display()) };
    assert!(compared(&serde_json::from_str(&text).unwrap()) > 0);
}

const CHATML: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|endoftext|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

/// The golden tokenizer's folder with a chat template.
fn tokenizer(at: &Path, template: &str) -> String {
    let to = at.join("tokenizer");
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(folder("tokenizer/json")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    fs::write(to.join("chat_template.jinja"), template).unwrap();
    to.to_str().unwrap().to_string()
}

#[test]
fn a_chat_template_is_found_beside_its_tokenizer() {
    let temp = tempfile::tempdir().unwrap();
    let path = tokenizer(temp.path(), CHATML);
    let asked = [Message::new(Speaker::User, "<image>what")];
    let render = |path: &str| Tokenizer::from_folder(path).unwrap().chat_template()?.render(&asked, true);
    assert_eq!(render(&path).unwrap(), "<|user|><image>what<|endoftext|>\n<|assistant|>");
    // In tokenizer_config.json, as a text or as several of them.
    fs::write(temp.path().join("tokenizer/chat_template.jinja"), "").unwrap();
    for template in [
        json!("{{ eos_token }}"),
        json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "{{ eos_token }}"}]),
    ] {
        let settings = json!({"eos_token": {"content": "<|endoftext|>"}, "chat_template": template});
        fs::write(temp.path().join("tokenizer/tokenizer_config.json"), settings.to_string()).unwrap();
        assert_eq!(render(&path).unwrap(), "<|endoftext|>");
    }
    let message = render(folder("tokenizer/json").to_str().unwrap()).unwrap_err().to_string();
    assert!(message.starts_with("the tokenizer has no chat template: looked for chat_template.jinja"), "{message}");
}

#[test]
fn the_program_puts_prompts_into_the_template() {
    let temp = tempfile::tempdir().unwrap();
    let with = format!("decoder.tokenizer={}", tokenizer(temp.path(), CHATML));
    let file = config(&temp.path().join("out"), &[]);
    let file = file.to_str().unwrap();
    let image = folder("train/features/03.npy");
    let image = image.to_str().unwrap();
    let base = ["generate", "--config", file, "--set", &with, "--max-tokens", "4", "--json", "--image", image];
    let told = |more: &[&str]| -> Value {
        let line: Value = serde_json::from_str(&stdout(&[&base[..], more].concat())).unwrap();
        json!([line["tokens"], line["logprobs"]])
    };
    let templated = told(&["--prompt", "<|user|><image>what<|endoftext|>\n<|assistant|>"]);
    assert_eq!(told(&["--chat", "--prompt", "<image>what"]), templated);
    assert_ne!(told(&["--prompt", "<image>what"]), templated);
    let caption = [
        "caption",
        "--config",
        file,
        "--set",
        &with,
        "--chat",
        "--prompt",
        "what",
        "--max-tokens",
        "4",
        "--json",
        image,
    ];
    let line: Value = serde_json::from_str(&stdout(&caption)).unwrap();
    assert_eq!((json!([line["tokens"], line["logprobs"]]), &line["prompt"]), (templated, &json!("what")));
    fails(&["caption", "--config", file, "--chat", image], &["generate.chat", "the tokenizer has no chat template"]);
    let refusing = format!("decoder.tokenizer={}", tokenizer(temp.path(), "{{ raise_exception('no users here') }}"));
    fails(
        &["caption", "--config", file, "--set", &refusing, "--chat", image],
        &["refuses the conversation", "no users here"],
    );
}

#[test]
fn training_learns_the_answer_and_its_end_alone() {
    let temp = tempfile::tempdir().unwrap();
    let tokens = |name: &str, template: &str, text: &str| {
        let (at, output) = (temp.path().join(name), temp.path().join(name).join("out"));
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("d.jsonl"), format!("{text}\n")).unwrap();
        let more = [
            ("/train/steps", json!(1)),
            ("/train/batch", json!(1)),
            ("/train/accumulate", json!(1)),
            ("/train/chat", json!(true)),
            ("/train/prompt", json!("what")),
            ("/generate", json!({"chat": true})),
            ("/decoder/tokenizer", json!(tokenizer(&at, template))),
            ("/data/path", json!(at.join("d.jsonl"))),
            ("/data/images", json!(folder("train/features"))),
        ];
        trained(&config(&output, &more), &[]);
        let line = &log(&output)[0];
        (line["tokens"].as_u64().unwrap() as usize, line["loss"].as_f64().unwrap())
    };
    let own = Tokenizer::from_folder(folder("tokenizer/json")).unwrap();
    let length = |text: &str| own.encode(text).unwrap().len();
    let caption = json!({"image": "03.npy", "caption": "a circle"}).to_string();
    // The caption and the end that the template writes; without one, the sequence's.
    assert_eq!(tokens("a", CHATML, &caption).0, length("a circle<|endoftext|>"));
    let endless = CHATML.replace("<|endoftext|>", "");
    assert_eq!(tokens("b", &endless, &caption).0, length("a circle") + 1);
    let turns = json!([
        {"role": "user", "content": "<image>what"}, {"role": "assistant", "content": "a circle"},
        {"role": "user", "content": "is it red"}, {"role": "assistant", "content": "no"},
    ]);
    let talk = json!({"image": "03.npy", "messages": turns}).to_string();
    assert_eq!(tokens("c", CHATML, &talk).0, length("a circle<|endoftext|>") + length("no<|endoftext|>"));
    // A caption is a conversation of one question.
    let one = json!({"image": "03.npy", "messages": turns.as_array().unwrap()[..2]}).to_string();
    assert_eq!(tokens("d", CHATML, &one), tokens("e", CHATML, &caption));
}
