//! The registry refuses what it has, and names what it does not know.

use super::*;
use std::sync::Arc;

fn toy(kind: &str, version: &str) -> Entry {
    Entry {
        kind: kind.to_string(),
        about: String::new(),
        origin: Origin::Library {
            path: "libtoy.so".into(),
            name: "toy".into(),
            version: version.into(),
            abi: "1.0".into(),
        },
        files: Vec::new(),
        needs_weights: true,
        schema: Value::Null,
        tiny: Value::Null,
        recognises: Arc::new(|_| Ok(false)),
        maker: Maker::Stitch(Arc::new(|_, _| bail!("never built"))),
    }
}

#[test]
fn a_kind_registered_twice_names_both_origins() {
    let mut registry = Registry::new();
    registry.insert(toy("linear", "1")).unwrap();
    let message = registry.insert(toy("linear", "2")).unwrap_err().to_string();
    assert_eq!(
        message,
        "stitch kind \"linear\" is registered twice: library libtoy.so (toy 1, ABI 1.0) and library libtoy.so (toy 2, ABI 1.0)"
    );
}

#[test]
fn an_unknown_kind_lists_the_known() {
    let mut registry = Registry::new();
    registry.insert(toy("linear", "1")).unwrap();
    registry.insert(toy("mlp", "1")).unwrap();
    let message = registry.get(Role::Stitch, "liner").err().unwrap().to_string();
    assert_eq!(message, "unknown stitch kind \"liner\" (did you mean \"linear\"?); known kinds: linear, mlp");
    let message = registry.get(Role::Stitch, "perceiver").err().unwrap().to_string();
    assert_eq!(message, "unknown stitch kind \"perceiver\"; known kinds: linear, mlp");
}

#[test]
fn roles_are_known_by_their_names() {
    for role in Role::ALL {
        assert_eq!(
            (role.to_string().parse::<Role>().unwrap(), serde_json::to_value(role).unwrap()),
            (role, role.name().into())
        );
    }
    let message = "Encoder".parse::<Role>().unwrap_err().to_string();
    assert_eq!(message, "role \"Encoder\" is unknown, expected encoder, stitch or decoder");
}
