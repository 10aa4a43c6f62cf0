//! What the conformance suite says of each lie, through the library.
#![allow(clippy::unwrap_used)]

#[test]
fn every_lie_is_found_and_named() {
    let registry = limber_plugin_host::open_built("limber_example_liars").unwrap().registry().unwrap();
    let check = |kind: &str, name: &str, reason: &str| {
        let report = limber_kit::check_entry(registry.get("encoder", kind).unwrap());
        let failed = report.failed();
        let found = failed.iter().find(|check| check.name.contains(name));
        let failure = found.and_then(|check| check.failure.as_ref()).unwrap_or_else(|| panic!("{report}"));
        assert!(failure.contains(reason), "{failure:?} lacks {reason:?}");
        for check in failed {
            // Whatever fails says which component of which library it was.
            let failure = check.failure.as_ref().unwrap();
            assert!(kind == "liar-batch" || failure.contains(kind), "{failure}");
        }
    };
    let shape = "features have the shape";
    check("liar-shape", shape, "features have shape [1, 5, 3], the spec says [1, 4, 3]");
    check("liar-dtype", shape, "features are f64, the contract says f32");
    check("liar-graph", "features carry no graph", "the features carry a graph");
    check("liar-batch", "a batch gives what its images give alone", "image 0 of 3");
    check("liar-nan", shape, "are not finite: element 0 is");
    check("liar-panic", shape, "an encoder in panic");
    check("liar-error", shape, "an encoder that fails");
    let report = limber_kit::check_entry(registry.get("encoder", "honest").unwrap());
    assert!(report.passed(), "{report}");
}
