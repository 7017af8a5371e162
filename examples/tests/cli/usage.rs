//! Wrong command lines end with 2 before anything is opened; help and version with 0.

use backup_examples::cli::Terminals;
use tokio_util::sync::CancellationToken;

use crate::harness::{Vault, run};

#[tokio::test]
async fn a_wrong_command_line_is_2() {
    let vault = Vault::absent();
    for args in [
        &["lisst"][..],
        &[],
        &["--jsn", "list"],
        &["list", "extra"],
        &["show"],
        &["backup"],
        &["backup", "oracle"],
        &["backup", "postgres", "--fulll"],
        &["backup", "postgres", "--method", "magic"],
        &["restore", "postgres"],
        &["restore", "postgres", "--into", "/x", "--latest", "--backup", "y"],
        &["restore", "postgres", "--into", "/x", "--time", "yesterday"],
        &["restore", "postgres", "--into", "/x", "--tablespace", "nonsense"],
        &["plan", "postgres", "--into", "/x", "--latest", "--exclusive"],
        &["verify", "--level", "deep"],
        &["log", "postgres", "--flush-after", "soon"],
        &["gc", "--now"],
        &["replicate"],
        &["replicate", "--promote", "--to", "file:///x"],
        &["repair"],
        &["verify", "--level", "full", "--budget", "1GiB"],
        &["verify", "--budget", "much"],
    ] {
        let ran = vault.run(args).await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}: {ran:?}");
        assert!(!ran.err.is_empty(), "{args:?}");

        let ran = vault.run(&[&["--json"], args].concat()).await;
        assert_eq!(ran.failed_json(2)["kind"], "usage", "{args:?}");
    }
    assert!(!vault.root().exists(), "nothing was opened");
}

#[tokio::test]
async fn options_that_nothing_stands_in_for_are_required() {
    let vault = Vault::absent();
    let all = [
        ("BACKUP_VAULT".to_owned(), vault.url()),
        ("BACKUP_SERVICE".to_owned(), "shop".to_owned()),
        ("BACKUP_PASSPHRASE".to_owned(), "secret".to_owned()),
    ];
    for missing in 0..all.len() {
        let mut variables = all.to_vec();
        let (name, _) = variables.remove(missing);
        for empty in [false, true] {
            if empty {
                variables.push((name.clone(), String::new()));
            }
            let ran = run(&["init"], &variables, Terminals::default(), CancellationToken::new()).await;
            assert_eq!(ran.code, 2, "{name}: {ran:?}");
            assert!(ran.err.contains(&name), "{name}: {ran:?}");
        }
    }
    assert!(!vault.root().exists());
}

#[tokio::test]
async fn help_lists_the_options_of_the_engine() {
    let vault = Vault::absent();
    for (args, expected) in [
        (&["--help"][..], &["init", "backup", "restore", "verify", "--vault", "BACKUP_PASSPHRASE"][..]),
        (&["backup", "--help"], &["postgres"]),
        (&["backup", "postgres", "--help"], &["--url", "--data-dir", "--method", "--checkpoint", "--full"]),
        (
            &["restore", "postgres", "--help"],
            &["--into", "--tablespace", "--delta", "--latest", "--backup", "--time", "--position", "--name", "--only"],
        ),
        (
            &["backup", "clickhouse", "--help"],
            &["--url", "CLICKHOUSE_URL", "--identity", "--tls-ca", "--data-dir", "--disk", "--parallel", "--no-verify"],
        ),
        (
            &["restore", "clickhouse", "--help"],
            &[
                "--existing",
                "--rename",
                "--structure-only",
                "--unreplicated",
                "--skip-damaged",
                "--keep-access",
                "--data-dir",
            ],
        ),
        (&["--version"], &["backupctl"]),
    ] {
        let ran = vault.run(args).await;
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
        for word in expected {
            assert!(ran.out.contains(word), "{args:?} says nothing of {word}:\n{}", ran.out);
        }
    }
}

#[tokio::test]
async fn options_win_over_variables() {
    let (named, other) = (Vault::absent(), Vault::absent());
    let file = named.secret_file("from a file\nsecond line\n");
    let file = file.to_str().unwrap();
    let url = named.url();
    let global = ["--vault", &url, "--service", "other", "--passphrase-file", file];

    assert_eq!(other.run(&[&["init"], &global[..]].concat()).await.code, 0);
    assert!(named.root().join("other/repository").exists() && !other.root().exists());

    let with = [("BACKUP_PASSPHRASE".to_owned(), "from a file".to_owned())];
    let args = [&global[..4], &["list"]].concat();
    assert_eq!(run(&args, &with, Terminals::default(), CancellationToken::new()).await.code, 0, "the first line is it");
}

#[tokio::test]
async fn an_exposed_passphrase_is_remarked_on() {
    use std::os::unix::fs::PermissionsExt;
    let vault = Vault::absent();
    let file = vault.secret_file("word\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = file.to_str().unwrap();
    let ran = vault.run(&["init", "--passphrase-file", file]).await;
    assert!(ran.code == 0 && ran.err.contains("every user of this machine"), "{ran:?}");
    for silent in ["--quiet", "--json"] {
        let ran = vault.run(&["list", "--passphrase-file", file, silent]).await;
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    }
}
