//! Whoever may add objects and has no key: junk under every name that means something.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::month::Month;

/// The names of what is stored, without the service's.
async fn names(store: &dyn ObjectStore) -> Vec<String> {
    let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
    let names = objects.iter().filter_map(|object| object.location.as_ref().strip_prefix("svc/").map(str::to_owned));
    names.collect()
}

/// Does one thing. Returns how many objects were planted.
pub(crate) async fn act(month: &mut Month) -> usize {
    let names = names(month.raw.as_ref()).await;
    let entries: Vec<u64> = names.iter().filter_map(|name| name.strip_prefix("catalog/0001/")?.parse().ok()).collect();
    // The end of what is written without a hole.
    let last = (1..).take_while(|number| entries.contains(number)).last().unwrap_or(0);
    let sessions: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("packs/")?.split('/').next()).collect();
    let choices = &mut month.choices;
    let session = match sessions.is_empty() {
        true => "01kzzzzzzzzzzzzzzzzzzzzzzz".to_owned(),
        // Often the newest, which may still be written to.
        false if choices.below(2) == 0 => sessions[sessions.len() - 1].to_owned(),
        false => sessions[choices.below(sessions.len() as u64) as usize].to_owned(),
    };
    let stranger = ["7zzzzzzzzzzzzzzzzzzzzzzzzz", "00000000000000000000000001", "01jzzzzzzzzzzzzzzzzzzzzzzz"];
    let stranger = stranger[choices.below(3) as usize];
    let some = choices.below(12);
    let wanted: Vec<String> = match choices.below(12) {
        0 | 1 => vec![format!("catalog/0001/{:020}", last + 1)],
        2 => (1..4).map(|ahead| format!("catalog/0001/{:020}", last + ahead)).collect(),
        3 => vec![format!("catalog/0001/{:020}", last + 2 + some), format!("catalog/0001/{:020}", u64::MAX)],
        4 => [2, 3, 7, u32::MAX]
            .iter()
            .map(|generation| format!("catalog/{generation:04}/{:020}", 1 + some % 2))
            .collect(),
        5 => vec!["region".to_owned(), "purge".to_owned()],
        6 => {
            let numbers = [last, last + 1, last + 1_000, u64::MAX];
            let generations = [1, 2, u32::MAX];
            let all =
                generations.iter().flat_map(|g| numbers.iter().map(move |n| format!("checkpoints/{g:04}/{n:020}")));
            all.collect()
        }
        7 => vec![format!("packs/{session}/{some:06}"), format!("packs/{session}/commit")],
        8 => vec![
            format!("packs/{stranger}/000000"),
            format!("packs/{stranger}/commit"),
            format!("packs/{session}/999999"),
        ],
        9 => vec![
            format!("keys/0001/key-{some:032x}"),
            format!("keys/0002/key-{some:032x}.{some:016x}"),
            "epochs/0002".to_owned(),
            format!("epochs/{:04}", some + 2),
        ],
        10 => vec![
            format!("log/1/{:08}/{:010}-{:016x}-{:016x}", some + 1, some + 1, 0, u64::MAX),
            format!("packs/{session}/alive-{some:06}"),
        ],
        _ => vec![format!("junk/{some}"), "catalog/readme".to_owned(), format!("packs/{session}/note-{some}")],
    };
    // What an object of this name looks like, as far as somebody without a key can make one.
    let like = names[month.choices.below(names.len() as u64) as usize].clone();
    let body = match month.choices.below(4) {
        0 => Vec::new(),
        1 => month.choices.bytes(300),
        kind => {
            let stored = month.raw.get(&Path::from(format!("svc/{like}"))).await.unwrap().bytes().await.unwrap();
            let mut stored = stored.to_vec();
            if kind == 3 && !stored.is_empty() {
                let at = month.choices.below(stored.len() as u64) as usize;
                stored[at] ^= 1;
            }
            stored
        }
    };
    let mut planted = 0;
    for name in wanted {
        let path = Path::from(format!("svc/{name}"));
        let put = month.raw.put_opts(&path, PutPayload::from(body.clone()), PutMode::Create.into()).await;
        planted += usize::from(put.is_ok());
    }
    // What is stored cannot be taken away.
    let victim = Path::from(format!("svc/{like}"));
    assert!(month.raw.delete(&victim).await.is_err() && month.raw.head(&victim).await.is_ok());
    planted
}
