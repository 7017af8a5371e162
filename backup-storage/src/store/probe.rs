//! Finding out a store that cannot keep the one promise the repository is built on.

use futures::future::join_all;

use crate::error::{Error, Result};

use super::metrics::Op;
use super::{Created, ObjectName, PutBody, Store};

/// How many writers race for one name.
const RACERS: usize = 4;

impl Store {
    /// Tries whether the store honours create-only puts, alone and in a race, and refuses it if not.
    ///
    /// Some stores accept the condition and ignore it, answering success to every put (garage does, measured); a
    /// commit protocol on such a store loses commits. A repository probes once, when it is created. A success cannot prove
    /// that a store is always right; it finds those that never are.
    ///
    /// Writes two small objects under random names in the folder `probe` and deletes them as far as it is permitted.
    ///
    /// # Errors
    /// [`Environment`](crate::error::ErrorKind::Environment) that says the store must not be used; otherwise the errors of
    /// [`Store::create`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave probe objects behind, which nothing reads.
    pub async fn probe_exclusive_create(&self) -> Result<()> {
        let alone = self.probe_name()?;
        let race = self.probe_name()?;
        let outcome = match self.probe_alone(&alone).await {
            Ok(()) => self.probe_race(&race).await,
            refused => refused,
        };
        for name in [&alone, &race] {
            if let Err(error) = self.delete(name).await {
                tracing::debug!(%name, %error, "the probe object stays behind");
            }
        }
        outcome
    }

    fn probe_name(&self) -> Result<ObjectName> {
        ObjectName::new(format!("probe/{:032x}", u128::from_le_bytes(self.shared.env.random())))
    }

    /// A body unlike any other.
    fn probe_body(&self) -> PutBody {
        PutBody::from(self.shared.env.random::<32>().to_vec())
    }

    /// One writer puts a name twice.
    async fn probe_alone(&self, name: &ObjectName) -> Result<()> {
        let (first, second) = (self.probe_body(), self.probe_body());
        if !self.create(name, first.clone()).await?.is_ours() {
            return Err(self.unfit("a fresh name was answered as taken"));
        }
        // The plain put, because `create` would hide the store's answer behind what it reads back.
        let path = self.path(name.as_str())?;
        match self.put(&path, &second).await {
            Ok(()) => Err(self.unfit("a second create-only put of one name was answered with success")),
            Err(failure) if failure.says_exists() => self.expect(name, &first).await,
            // Whatever else the store says must not have changed the object either.
            Err(failure) => {
                self.expect(name, &first).await?;
                Err(failure.into_error(Op::Create, path.as_ref()))
            }
        }
    }

    /// Several writers put one name at once.
    async fn probe_race(&self, name: &ObjectName) -> Result<()> {
        let bodies: Vec<PutBody> = (0..RACERS).map(|_| self.probe_body()).collect();
        let outcomes = join_all(bodies.iter().map(|body| self.create(name, body.clone()))).await;
        let outcomes = outcomes.into_iter().collect::<Result<Vec<Created>>>()?;
        let winners: Vec<&PutBody> =
            outcomes.iter().zip(&bodies).filter(|(created, _)| created.is_ours()).map(|(_, body)| body).collect();
        match winners[..] {
            [winner] => self.expect(name, winner).await,
            _ => Err(self.unfit(&format!("{} of {RACERS} racing create-only puts of one name won", winners.len()))),
        }
    }

    async fn expect(&self, name: &ObjectName, body: &PutBody) -> Result<()> {
        if body.equals(&self.get(name).await?) {
            return Ok(());
        }
        Err(self.unfit("an object does not hold the bytes of the put that won"))
    }

    fn unfit(&self, what: &str) -> Error {
        Error::environment(format!("{self} ignores create-only puts and must not be used for a repository: {what}"))
    }
}
