//! A bank under load: what it must show after a restore is known beforehand.
//!
//! One transaction moves an amount between two accounts and books it at a teller, a branch and in the history, as
//! pgbench's does, plus the two things that pgbench lacks: the sum of the accounts never changes, and every client
//! numbers its transactions. So a restored bank is consistent exactly if the sums agree and each client's numbers have
//! no hole, and it has lost nothing if each client's last number is at least the last one that was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, Config};
use tokio_util::sync::CancellationToken;

use super::random::Random;
use crate::error::{Error, Result};
use crate::postgres::Postgres;
use crate::wait::Stopwatch;

/// What every account holds at first.
const OPENING_BALANCE: i64 = 1000;
const TELLERS: u32 = 64;
const BRANCHES: u32 = 8;

/// The tables of a bank, in the schema `bank`.
#[derive(Clone, Copy, Debug)]
pub struct Bank {
    accounts: u32,
}

/// A bank as found in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BankState {
    /// Number of accounts.
    pub accounts: i64,
    /// Sum of all accounts.
    pub accounts_sum: i64,
    /// Sum of what tellers have moved.
    pub tellers_sum: i64,
    /// Sum of what branches have moved.
    pub branches_sum: i64,
    /// Sum of the history's amounts.
    pub history_sum: i64,
    /// Number of transactions in the history.
    pub history_count: i64,
    /// The last transaction number of each client, by client.
    pub last_by_client: Vec<(i32, i64)>,
}

impl Bank {
    /// Creates the schema `bank` with `accounts` accounts (at least two; 10 000 take about a megabyte).
    ///
    /// # Errors
    /// [`Error::Sql`], also when the schema exists.
    pub async fn create(client: &Client, accounts: u32) -> Result<Self> {
        let accounts = accounts.max(2);
        let sql = format!(
            "begin;
             create schema bank;
             create table bank.accounts (id int not null, branch int not null, balance bigint not null, filler char(84) not null default '');
             create table bank.tellers (id int not null, moved bigint not null, filler char(84) not null default '');
             create table bank.branches (id int not null, moved bigint not null, filler char(88) not null default '');
             create table bank.history (client int not null, number bigint not null, debtor int not null, creditor int not null,
                 teller int not null, branch int not null, amount bigint not null, at timestamptz not null default now());
             insert into bank.accounts select i, i % {BRANCHES}, {OPENING_BALANCE} from generate_series(1, {accounts}) i;
             insert into bank.tellers select i, 0 from generate_series(0, {TELLERS} - 1) i;
             insert into bank.branches select i, 0 from generate_series(0, {BRANCHES} - 1) i;
             alter table bank.accounts add primary key (id);
             alter table bank.tellers add primary key (id);
             alter table bank.branches add primary key (id);
             alter table bank.history add primary key (client, number);
             commit"
        );
        client.batch_execute(&sql).await?;
        Ok(Self { accounts })
    }

    /// Starts `clients` connections to `database` of `server` that move money until told to stop.
    ///
    /// # Errors
    /// [`Error::Sql`] when a connection can't be made.
    pub async fn run(&self, server: &Postgres, database: &str, clients: u16) -> Result<BankWorkload> {
        self.run_on(&server.config(database), clients).await
    }

    /// As [`run`](Self::run), on any server.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_on(&self, config: &Config, clients: u16) -> Result<BankWorkload> {
        let stop = CancellationToken::new();
        let committed = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..i32::from(clients) {
            let client = crate::postgres::connect(config).await?;
            let teller = Teller { client, number, accounts: self.accounts, committed: Arc::clone(&committed) };
            tasks.spawn(teller.work(stop.clone()));
        }
        Ok(BankWorkload { config: config.clone(), stop, committed, tasks, watch: Stopwatch::start() })
    }

    /// Looks at a bank and checks that it is one that a transactionally consistent database can hold.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] that names what does not add up.
    pub async fn check(client: &Client) -> Result<BankState> {
        let row = client
            .query_one(
                "select (select count(*) from bank.accounts),
                        (select coalesce(sum(balance), 0)::bigint from bank.accounts),
                        (select coalesce(sum(moved), 0)::bigint from bank.tellers),
                        (select coalesce(sum(moved), 0)::bigint from bank.branches),
                        (select coalesce(sum(amount), 0)::bigint from bank.history),
                        (select count(*) from bank.history),
                        (select count(*) from (select 1 from bank.history group by client
                            having count(*) <> max(number) or min(number) <> 1) holes),
                        array(select client from bank.history group by client order by client),
                        array(select max(number) from bank.history group by client order by client)",
                &[],
            )
            .await?;
        let clients: Vec<i32> = row.try_get(7)?;
        let last: Vec<i64> = row.try_get(8)?;
        let state = BankState {
            accounts: row.try_get(0)?,
            accounts_sum: row.try_get(1)?,
            tellers_sum: row.try_get(2)?,
            branches_sum: row.try_get(3)?,
            history_sum: row.try_get(4)?,
            history_count: row.try_get(5)?,
            last_by_client: clients.into_iter().zip(last).collect(),
        };
        let holes: i64 = row.try_get(6)?;
        let sums_agree = state.tellers_sum == state.history_sum && state.branches_sum == state.history_sum;
        if state.accounts_sum != state.accounts * OPENING_BALANCE || !sums_agree || holes != 0 {
            return Err(Error::invalid(format!("the bank does not add up ({holes} clients with holes): {state:?}")));
        }
        Ok(state)
    }
}

/// Money being moved. Dropping it ends the clients without a report.
#[derive(Debug)]
pub struct BankWorkload {
    config: Config,
    stop: CancellationToken,
    committed: Arc<AtomicU64>,
    tasks: JoinSet<(i32, i64, Option<tokio_postgres::Error>)>,
    watch: Stopwatch,
}

/// What a workload did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BankReport {
    /// Transactions whose commit the server has acknowledged.
    pub committed: u64,
    /// The number of the last acknowledged transaction of each client. A restore to the latest moment must show at
    /// least these.
    pub acknowledged: Vec<(i32, i64)>,
    /// A position of the WAL that all acknowledged transactions lie before. `None` when the server was gone by then.
    pub last_commit_lsn: Option<PgLsn>,
    /// How long it ran.
    pub elapsed: Duration,
    /// Why clients ended early, in words: a server that was stopped under them.
    pub failures: Vec<String>,
}

impl BankWorkload {
    /// Transactions acknowledged so far.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Waits until `count` further transactions have been acknowledged; false when all clients have ended or `timeout`
    /// has passed before that.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_committed(&self, count: u64, timeout: Duration) -> bool {
        let goal = self.committed().saturating_add(count);
        // A client that has ended has let go of the counter.
        let all_ended = || Arc::strong_count(&self.committed) == 1;
        let reached = || match self.committed() >= goal {
            true => Some(true),
            false => all_ended().then_some(false),
        };
        crate::wait::until_async(timeout, reached).await.unwrap_or(false)
    }

    /// Lets every client finish its transaction and reports.
    ///
    /// # Cancel safety
    /// Dropping the future ends the clients; the report is lost.
    pub async fn stop(mut self) -> BankReport {
        self.stop.cancel();
        let (mut acknowledged, mut failures) = (Vec::new(), Vec::new());
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok((client, last, error)) => {
                    acknowledged.push((client, last));
                    failures.extend(error.map(|error| format!("client {client}: {}", Error::Sql(error))));
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
        acknowledged.sort_unstable();
        let elapsed = self.watch.elapsed();
        let last_commit_lsn = position(&self.config).await.ok();
        BankReport { committed: self.committed(), acknowledged, last_commit_lsn, elapsed, failures }
    }
}

async fn position(config: &Config) -> Result<PgLsn> {
    let client = crate::postgres::connect(config).await?;
    Ok(client.query_one("select pg_current_wal_insert_lsn()", &[]).await?.try_get(0)?)
}

struct Teller {
    client: Client,
    number: i32,
    accounts: u32,
    committed: Arc<AtomicU64>,
}

impl Teller {
    async fn work(self, stop: CancellationToken) -> (i32, i64, Option<tokio_postgres::Error>) {
        // A workload may be started again on the same bank: its clients go on counting.
        let (first, mut random) = match self.last_number().await {
            Ok(last) => (last, Random::new(u64::from(self.number.unsigned_abs()) << 32 | last.unsigned_abs())),
            Err(error) => return (self.number, 0, Some(error)),
        };
        let mut last = first;
        while !stop.is_cancelled() {
            if let Err(error) = self.transfer(last + 1, &mut random).await {
                return (self.number, last, Some(error));
            }
            last += 1;
            self.committed.fetch_add(1, Ordering::Relaxed);
        }
        (self.number, last, None)
    }

    async fn last_number(&self) -> Result<i64, tokio_postgres::Error> {
        let sql = "select coalesce(max(number), 0) from bank.history where client = $1";
        self.client.query_one(sql, &[&self.number]).await?.try_get(0)
    }

    /// One transaction in one message. Rows are locked in the same order by everyone (accounts by number, teller,
    /// branch), so clients wait for each other but never deadlock.
    async fn transfer(&self, number: i64, random: &mut Random) -> Result<(), tokio_postgres::Error> {
        let debtor = random.below(self.accounts) + 1;
        let creditor = debtor % self.accounts + 1;
        let (low, high) = (debtor.min(creditor), debtor.max(creditor));
        let amount = random.below(100) + 1;
        let teller = self.number.unsigned_abs() % TELLERS;
        let branch = random.below(BRANCHES);
        let (client, sign) = (self.number, if low == debtor { "-" } else { "+" });
        let other = if low == debtor { "+" } else { "-" };
        let sql = format!(
            "begin;
             update bank.accounts set balance = balance {sign} {amount} where id = {low};
             update bank.accounts set balance = balance {other} {amount} where id = {high};
             update bank.tellers set moved = moved + {amount} where id = {teller};
             update bank.branches set moved = moved + {amount} where id = {branch};
             insert into bank.history (client, number, debtor, creditor, teller, branch, amount)
                 values ({client}, {number}, {debtor}, {creditor}, {teller}, {branch}, {amount});
             commit"
        );
        self.client.batch_execute(&sql).await
    }
}
