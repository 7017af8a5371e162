//! A ledger that a writer keeps of all that it does: what a server must hold at any place of its stream.
//!
//! Nothing in it comes from the stream. The writer asks the server after each unit where it stands, in the same packet, so that nothing
//! comes between a unit and its place. What chance decides (what was popped, whether a key had expired) it takes from the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backup_testkit::Redis;
use backup_testkit::redis::{RedisClient, Reply};
use backup_testkit::wait::{self, Stopwatch};
use jiff::Timestamp;

use crate::harness::work;

/// So many units are sent at once. A server reads 16 KiB at a time; what comes in one piece is executed without a break.
const BATCH: usize = 40;
/// Keys that expire while the load goes on. They are gone when a restore looks.
const BRIEF: u32 = 8;

const TALLY: &str = "redis.call('HSET',KEYS[1],ARGV[1],ARGV[2])\nreturn(redis.call('INCR',KEYS[2]))";
const LOOK: &str = "if(redis.call('EXISTS',KEYS[1])==1)then\nredis.call('INCR',KEYS[2])\nreturn(1)\nend\n\
                    redis.call('INCR',KEYS[3])\nreturn(0)";

/// Numbers that are the same for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// What a key holds. All that is written are numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// And whether it expires.
    Number(i64, bool),
    List(Vec<i64>),
    Set(BTreeSet<i64>),
    Hash(BTreeMap<i64, i64>),
}

/// All that a server holds, by database and name.
pub(crate) type State = BTreeMap<(u64, String), Value>;

/// What is done at once or not at all.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Plain,
    Sum,
    Transfer,
    Pair,
    Script,
    Function,
    Brief,
    BriefInside,
    Look,
    Long,
    Add,
    Pop,
}

const KINDS: [Kind; 12] = [
    Kind::Plain,
    Kind::Sum,
    Kind::Transfer,
    Kind::Pair,
    Kind::Script,
    Kind::Function,
    Kind::Brief,
    Kind::BriefInside,
    Kind::Look,
    Kind::Long,
    Kind::Add,
    Kind::Pop,
];

#[derive(Debug, Clone, Copy)]
struct Unit {
    kind: Kind,
    dice: u32,
    /// The first answer, where that is a number.
    said: Option<i64>,
    /// Where the stream stood behind it.
    end: u64,
}

/// Units that were sent together.
struct Batch {
    sent: Timestamp,
    /// The number of the first unit.
    first: usize,
}

/// What was done, in order.
#[derive(Default)]
pub(crate) struct Ledger {
    units: Vec<Unit>,
    batches: Vec<Batch>,
    pub(crate) writes: usize,
}

impl Unit {
    /// The commands, and how many of them write.
    fn commands(&self, number: usize, functions: bool) -> (Vec<Vec<String>>, usize) {
        let dice = self.dice;
        let (a, b, x) = (dice % 20, dice / 20 % 20, dice / 400 % 100);
        let text = match self.kind {
            Kind::Plain => format!("SET plain:{} {number}", dice % 100),
            Kind::Sum => format!("INCRBY sum:{} {number}", dice % 20),
            Kind::Transfer => {
                format!("MULTI|DECRBY account:{a} {x}|INCRBY account:{b} {x}|RPUSH log {number}|LTRIM log -20 -1|EXEC")
            }
            Kind::Pair => format!("MULTI|SELECT 1|SET pair:{a} {number}|SELECT 0|SET pair:{a} {number}|EXEC"),
            Kind::Function if functions => format!("FCALL tally 2 hash:{a} tallied {b} {number}"),
            Kind::Script | Kind::Function => format!("EVAL {TALLY} 2 hash:{a} tallied {b} {number}"),
            Kind::Brief => format!("SET brief:{} {number} PX {}", dice % BRIEF, 5 + x),
            Kind::BriefInside => format!("MULTI|SET brief:{} {number} PX {}|INCR begun|EXEC", dice % BRIEF, 5 + x),
            Kind::Look => format!("EVAL {LOOK} 3 brief:{} alive gone", dice % BRIEF),
            Kind::Long => format!("SET long:{a} {number} EX 100000"),
            Kind::Add => format!("SADD pool {number}"),
            Kind::Pop => "SPOP pool".to_owned(),
        };
        let writes = match self.kind {
            Kind::Transfer => 4,
            Kind::Pair | Kind::Script | Kind::Function | Kind::BriefInside => 2,
            _ => 1,
        };
        (text.split('|').map(|line| line.split(' ').map(str::to_owned).collect()).collect(), writes)
    }

    /// What the unit does to `state`.
    fn apply(&self, number: usize, state: &mut State) {
        let dice = self.dice;
        let number = number as i64;
        let (a, b, x) = (dice % 20, dice / 20 % 20, i64::from(dice / 400 % 100));
        let mut set = |database, key: String, expires| {
            state.insert((database, key), Value::Number(number, expires));
        };
        match self.kind {
            Kind::Plain => set(0, format!("plain:{}", dice % 100), false),
            Kind::Long => set(0, format!("long:{a}"), true),
            Kind::Pair => {
                set(1, format!("pair:{a}"), false);
                set(0, format!("pair:{a}"), false);
            }
            Kind::Sum => add(state, &format!("sum:{}", dice % 20), number),
            Kind::Transfer => {
                add(state, &format!("account:{a}"), -x);
                add(state, &format!("account:{b}"), x);
                let Value::List(log) = entry(state, "log", Value::List(Vec::new())) else { unreachable!() };
                log.push(number);
                log.drain(..log.len().saturating_sub(20));
            }
            Kind::Script | Kind::Function => {
                let hash = entry(state, &format!("hash:{a}"), Value::Hash(BTreeMap::new()));
                let Value::Hash(hash) = hash else { unreachable!() };
                hash.insert(i64::from(b), number);
                add(state, "tallied", 1);
            }
            Kind::Brief => {}
            Kind::BriefInside => add(state, "begun", 1),
            Kind::Look => add(state, if self.said == Some(1) { "alive" } else { "gone" }, 1),
            Kind::Add => {
                let Value::Set(pool) = entry(state, "pool", Value::Set(BTreeSet::new())) else { unreachable!() };
                pool.insert(number);
            }
            Kind::Pop => {
                let key = (0, "pool".to_owned());
                if let (Some(popped), Some(Value::Set(pool))) = (self.said, state.get_mut(&key)) {
                    assert!(pool.remove(&popped));
                    if pool.is_empty() {
                        state.remove(&key);
                    }
                }
            }
        }
    }
}

fn entry<'a>(state: &'a mut State, key: &str, empty: Value) -> &'a mut Value {
    state.entry((0, key.to_owned())).or_insert(empty)
}

fn add(state: &mut State, key: &str, number: i64) {
    let Value::Number(sum, _) = entry(state, key, Value::Number(0, false)) else { unreachable!() };
    *sum += number;
}

impl Ledger {
    /// Writes for `time`, about `rate` writes in a second.
    pub(crate) async fn write(server: &Redis, seed: u64, time: Duration, rate: usize) -> Self {
        let functions = server.version().since_7();
        let (mut ledger, mut dice) = (Self::default(), Dice::new(seed));
        let mut client = server.connect().await.unwrap();
        let watch = Stopwatch::start();
        while watch.elapsed() < time {
            ledger.batch(&mut client, &mut dice, functions).await;
            let due = Duration::from_secs_f64(ledger.writes as f64 / rate as f64);
            wait::until_async(time, || (watch.elapsed() >= due.min(time)).then_some(())).await;
        }
        ledger
    }

    async fn batch(&mut self, client: &mut RedisClient, dice: &mut Dice, functions: bool) {
        let first = self.units.len();
        let (mut commands, mut heads) = (Vec::new(), Vec::new());
        for number in first..first + BATCH {
            let kind = KINDS[dice.below(KINDS.len() as u64) as usize];
            let unit = Unit { kind, dice: dice.below(40_000) as u32, said: None, end: 0 };
            let (unit_commands, writes) = unit.commands(number, functions);
            self.writes += writes;
            heads.push((commands.len(), commands.len() + unit_commands.len()));
            commands.extend(unit_commands);
            commands.push(vec!["INFO".to_owned(), "replication".to_owned()]);
            self.units.push(unit);
        }
        let sent = work().env().now();
        let replies = client.send(&commands).await.unwrap();
        let error = replies.iter().find(|reply| matches!(reply, Reply::Error(_)));
        assert!(error.is_none(), "{error:?}");
        for (unit, (head, place)) in self.units[first..].iter_mut().zip(heads) {
            let text = replies[place].text();
            let offset = text.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
            unit.end = offset.unwrap().trim().parse().unwrap();
            unit.said = replies[head].number();
        }
        self.batches.push(Batch { sent, first });
    }

    /// How many units had ended at `offset`.
    pub(crate) fn done(&self, offset: u64) -> usize {
        self.units.partition_point(|unit| unit.end <= offset)
    }

    /// Where the last unit ends.
    pub(crate) fn end(&self) -> u64 {
        self.units.last().unwrap().end
    }

    /// When the unit before the `count`th had been sent at the latest, and when the one behind it.
    pub(crate) fn sent(&self, count: usize) -> (Timestamp, Option<Timestamp>) {
        let batch = |unit: usize| self.batches.partition_point(|batch| batch.first <= unit) - 1;
        let next = (count < self.units.len()).then(|| self.batches[batch(count)].sent);
        (self.batches[batch(count.saturating_sub(1))].sent, next)
    }

    /// When the first and the last batch were sent.
    pub(crate) fn times(&self) -> (Timestamp, Timestamp) {
        (self.batches[0].sent, self.batches[self.batches.len() - 1].sent)
    }

    /// What there is after as many units as each of `counts` says.
    pub(crate) fn states(&self, counts: &BTreeSet<usize>) -> BTreeMap<usize, State> {
        let (mut states, mut state, mut at) = (BTreeMap::new(), State::new(), 0);
        for count in counts {
            for number in at..*count {
                self.units[number].apply(number, &mut state);
            }
            at = *count;
            states.insert(*count, state.clone());
        }
        states
    }
}

/// Makes the function known that the load calls.
pub(crate) async fn prepare(server: &Redis) {
    if server.version().since_7() {
        let code = format!("#!lua name=ledger\nredis.register_function('tally', function(KEYS, ARGV)\n{TALLY}\nend)");
        server.connect().await.unwrap().call(&["FUNCTION", "LOAD", &code]).await.unwrap();
    }
}

/// Waits until nothing is left of what expires soon.
pub(crate) async fn brief_keys_are_gone(server: &Redis) {
    let mut client = server.connect().await.unwrap();
    let keys: Vec<String> = (0..BRIEF).map(|key| format!("brief:{key}")).collect();
    let question: Vec<&str> = ["EXISTS"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    let deadline = wait::Deadline::after(Duration::from_secs(10));
    while client.call(&question).await.unwrap().number() != Some(0) {
        assert!(!deadline.passed());
    }
}

/// All that `server` holds.
pub(crate) async fn observe(server: &Redis) -> State {
    let mut client = server.connect().await.unwrap();
    let mut state = State::new();
    for database in [0, 1] {
        client.run(&format!("SELECT {database}")).await.unwrap();
        let keys: Vec<String> = client.run("KEYS *").await.unwrap().items().iter().map(Reply::text).collect();
        for key in keys {
            let value = value(&mut client, &key).await;
            state.insert((database, key), value);
        }
    }
    state
}

async fn value(client: &mut RedisClient, key: &str) -> Value {
    let kind = client.call(&["TYPE", key]).await.unwrap().text();
    let question: &[&str] = match kind.as_str() {
        "string" => &["GET", key],
        "list" => &["LRANGE", key, "0", "-1"],
        "set" => &["SMEMBERS", key],
        "hash" => &["HGETALL", key],
        other => panic!("{key} is a {other}"),
    };
    let reply = client.call(question).await.unwrap();
    let mut numbers = reply.items().iter().map(|item| item.number().unwrap());
    match kind.as_str() {
        "string" => {
            let expires = client.call(&["PTTL", key]).await.unwrap().number().unwrap() >= 0;
            Value::Number(reply.number().unwrap(), expires)
        }
        "list" => Value::List(numbers.collect()),
        "set" => Value::Set(numbers.collect()),
        _ => {
            let mut pairs = BTreeMap::new();
            while let (Some(field), Some(value)) = (numbers.next(), numbers.next()) {
                pairs.insert(field, value);
            }
            Value::Hash(pairs)
        }
    }
}
