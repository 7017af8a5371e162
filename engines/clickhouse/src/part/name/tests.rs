use proptest::prelude::*;

use super::{DetachReason, DetachedName, PartName, Syntax};

fn custom(name: &str) -> PartName {
    PartName::parse(name, Syntax::Custom).expect(name)
}

#[test]
fn both_syntaxes_are_read_and_shown_again() {
    for name in ["all_1_1_0", "202401_1_5_2_7", "patch-217fed773f8b0f1741d2ccea2e599cdf-all_3_3_0_2", "-5_0_9_1"] {
        assert_eq!(custom(name).to_string(), name);
        assert_eq!(PartName::guess(name).unwrap(), custom(name));
    }
    let name = PartName::parse("20240105_20240114_1_7_2_9", Syntax::Monthly).unwrap();
    assert_eq!((name.partition(), name.min_block(), name.max_block()), ("202401", 1, 7));
    assert_eq!((name.level(), name.mutation(), name.syntax()), (2, 9, Syntax::Monthly));
    assert_eq!(name.to_string(), "20240105_20240114_1_7_2_9");
    assert_eq!(PartName::guess("20240105_20240114_1_7_2_9").unwrap(), name);
    // Partitions by day are not taken for the old syntax.
    assert_eq!(PartName::guess("20240105_1_7_2_9").unwrap().syntax(), Syntax::Custom);
}

#[test]
fn names_that_no_server_gives_are_refused() {
    let hostile = [
        "",
        ".",
        "..",
        "/",
        "../../etc_1_1_0",
        "a/b_1_1_0",
        "_1_1_0",
        "all",
        "all_1",
        "all_1_1",
        "all_1_1_",
        "all_1_1_0_",
        "all_1_1_0_0",
        "all_1_1_0_1_1",
        "all_2_1_0",
        "all_-1_1_0",
        "all_+1_1_0",
        "all_01_1_0",
        "all_1_1_00",
        "all_1_1_4294967296",
        "all_1_9223372036854775808_0",
        "all_1_99999999999999999999999999_0",
        "all_1_1_0\n",
        " all_1_1_0",
        "al%l_1_1_0",
        "ä_1_1_0",
        "all_1_1_0_try1",
    ];
    for name in hostile {
        PartName::parse(name, Syntax::Custom).expect_err(name);
        PartName::guess(name).expect_err(name);
    }
    for name in
        ["20240105_20240214_1_1_0", "20240114_20240105_1_1_0", "20241305_20241306_1_1_0", "2024015_2024016_1_1_0"]
    {
        PartName::parse(name, Syntax::Monthly).expect_err(name);
    }
    let long = format!("{}_1_1_0", "a".repeat(1 << 20));
    let error = PartName::parse(&long, Syntax::Custom).unwrap_err();
    assert!(error.to_string().len() < 400, "a message does not grow with what is wrong");
}

#[test]
fn a_part_covers_what_was_merged_into_it() {
    assert!(custom("all_0_5_3").covers(&custom("all_0_4_2")));
    assert!(custom("all_0_4_2_9").covers(&custom("all_0_4_2")));
    assert!(custom("all_0_4_2").covers(&custom("all_0_4_2")));
    // Blocks grew, but the level did not: these two intersect, and neither is in the other.
    assert!(!custom("all_0_5_2").covers(&custom("all_0_4_2")));
    assert!(!custom("all_0_5_3").covers(&custom("all_0_4_2_9")));
    assert!(!custom("all_0_5_3").covers(&custom("all_4_6_0")));
    assert!(!custom("202401_0_5_3").covers(&custom("202402_1_1_0")));
    assert!(custom("all_0_9_999999999").covers(&custom("all_0_4_4294967295")));
    assert!(custom("all_0_5_3").is_disjoint(&custom("all_6_6_0")));
    assert!(!custom("all_0_5_3").is_disjoint(&custom("all_5_6_1")));
}

#[test]
fn parts_are_attached_by_partition_and_first_block() {
    let mut names: Vec<_> = ["202402_2_2_0", "202401_10_10_0", "202401_9_9_0", "202401_1_8_2"].map(custom).into();
    names.sort();
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["202401_1_8_2", "202401_9_9_0", "202401_10_10_0", "202402_2_2_0"]);
}

#[test]
fn folders_of_detached_say_why() {
    let known = DetachedName::parse("broken-on-start_202401_1_5_2_7", Syntax::Custom).unwrap();
    assert_eq!((known.reason(), known.part()), (Some(&DetachReason::BrokenOnStart), &custom("202401_1_5_2_7")));
    assert!(!known.is_attachable());

    let old = DetachedName::parse("ignored_20240105_20240114_1_1_0_try2", Syntax::Monthly).unwrap();
    assert_eq!((old.reason(), old.attempt()), (Some(&DetachReason::Ignored), 2));
    assert_eq!(old.to_string(), "ignored_20240105_20240114_1_1_0_try2");

    let plain = DetachedName::parse("all_1_1_0", Syntax::Custom).unwrap();
    assert!(plain.is_attachable() && plain.reason().is_none());
    assert!(!DetachedName::parse("all_1_1_0_try1", Syntax::Custom).unwrap().is_attachable());

    let other = DetachedName::parse("kept_all_1_1_0", Syntax::Custom).unwrap();
    assert_eq!(other.reason(), Some(&DetachReason::Other("kept".to_owned())));
    for name in ["tmp_insert_all_1_1_0", "..", "a/b_all_1_1_0", "broken_", "broken", "_all_1_1_0", "x_all_1_1_0_try0"] {
        DetachedName::parse(name, Syntax::Custom).expect_err(name);
    }
    for (word, reason) in super::detached::WORDS {
        let name = format!("{word}_all_1_1_0");
        let read = DetachedName::parse(&name, Syntax::Custom).unwrap();
        assert_eq!((read.reason(), read.to_string()), (Some(&reason), name));
    }
}

proptest! {
    #[test]
    fn what_is_read_is_shown_again(name in "[a-z0-9_./-]{0,24}") {
        for syntax in [Syntax::Custom, Syntax::Monthly] {
            if let Ok(read) = PartName::parse(&name, syntax) {
                prop_assert_eq!(read.to_string(), name.as_str());
            }
            if let Ok(read) = DetachedName::parse(&name, syntax) {
                prop_assert_eq!(read.to_string(), name.as_str());
            }
        }
    }

    #[test]
    fn covering_is_an_order(
        names in prop::collection::vec((0u64..4, 0u64..4, 0u32..3, 0u64..3), 3)
    ) {
        let names: Vec<_> = names.into_iter().map(|(first, more, level, mutation)| {
            let mutation = if mutation == 0 { String::new() } else { format!("_{mutation}") };
            custom(&format!("all_{first}_{}_{level}{mutation}", first + more))
        }).collect();
        let [a, b, c] = names.as_slice() else { unreachable!() };
        prop_assert!(a.covers(a));
        prop_assert!(!(a.covers(b) && b.covers(a)) || a == b);
        prop_assert!(!(a.covers(b) && b.covers(c)) || a.covers(c));
        prop_assert!(!a.covers(b) || !a.is_disjoint(b));
    }
}
