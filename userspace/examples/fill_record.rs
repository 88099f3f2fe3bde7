//! Fills a store with incidents, as a host on the internet gathers them in a month: `fill_record DIRECTORY INCIDENTS`. They
//! are made up from a fixed seed and end now, and they are written as the controller writes its own. `cargo xtask bench record`
//! measures on such a store.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use xdpban::clock;
use xdpban::store::{Act, Store, Write};
use xdpban_engine::change::{Block, End, Expiry, Origin, Protection, Protector, Refusal, Refused};
use xdpban_engine::measure::Measure;
use xdpban_engine::rules::{RuleId, RuleRef};
use xdpban_engine::target::Target;
use xdpban_engine::time::{Now, Wall};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// The time that the incidents fill.
const PERIOD: i64 = 30 * DAY;

/// How many writes make a transaction.
const BATCH: usize = 2000;

/// Sources that attack: one of four incidents comes from one of the first hundred.
const SOURCES: u64 = 300_000;

/// Of so many incidents each, one has this outcome.
const LIFTED: u64 = 70;
const REFUSED: u64 = 400;
const FAILED: u64 = 20_000;

/// The rules, how often each matches in a hundred times, for how many seconds it blocks, and attempts before it does.
const RULES: [(u32, u8, &str, u64, i64, u32); 6] = [
    (5710, 5, "login as a user that does not exist", 70, 100, 1),
    (5712, 10, "several logins as users that do not exist", 12, 600, 8),
    (5763, 10, "several failed logins", 10, 600, 8),
    (5720, 10, "several failed logins as the same user", 5, 600, 8),
    (5758, 8, "more attempts than sshd permits", 2, 600, 6),
    (5719, 10, "several logins that sshd's configuration denies", 1, 3600, 8),
];

const USERS: [&str; 12] = [
    "root", "admin", "test", "user", "ubuntu", "oracle", "postgres", "git", "pi", "ftpuser", "deploy",
    "nagios",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(incidents)) = (arguments.next(), arguments.next()) else {
        return Err("usage: fill_record DIRECTORY INCIDENTS".into());
    };
    let mut filled = Filled {
        store: Store::open(Path::new(&directory))?,
        waiting: Vec::new(),
        standing: BTreeMap::new(),
        ends: BinaryHeap::new(),
        random: Random(20_261_101),
        now: clock::now(),
    };
    filled.fill(incidents.parse()?)
}

struct Filled {
    store: Store,
    waiting: Vec<Write>,
    /// The blocks in force, and when they end.
    standing: BTreeMap<Target, Arc<Block>>,
    ends: BinaryHeap<Reverse<(Wall, Target)>>,
    random: Random,
    now: Now,
}

impl Filled {
    fn fill(&mut self, incidents: u64) -> Result<(), Box<dyn Error>> {
        let first = self.now.wall.0 - PERIOD;
        let step = PERIOD / i64::try_from(incidents)?.max(1);
        let (mut at, mut day) = (Wall(first), -1);
        self.started(Wall(first));
        for _ in 0..incidents {
            // Attacks come in waves, on the average one for each step.
            at = Wall(at.0 + step / 2 + self.random.below(step.unsigned_abs().max(1)).cast_signed());
            if (at.0 - first) / DAY != day {
                day = (at.0 - first) / DAY;
                self.day(at, day);
            }
            self.end_until(at)?;
            self.incident(at);
            self.flush(BATCH)?;
        }
        self.end_until(self.now.wall)?;
        self.waiting.push(Write::Alive { at: self.now.wall });
        self.flush(1)
    }

    /// What an operator does in the course of a day.
    fn day(&mut self, at: Wall, day: i64) {
        let network = Target::prefix(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)), 24);
        let (comment, expires_at) = (Some(format!("visitors of day {day}")), Some(Wall(at.0 + DAY)));
        self.waiting.push(Write::Allow { network, comment, expires_at, uid: Some(1000), at });
        if day % 7 == 3 {
            self.waiting.push(Write::Alive { at });
            self.waiting.push(Write::Act { at, uid: None, act: Act::Stopped { version: VERSION } });
            self.started(Wall(at.0 + 40 * SECOND));
        }
    }

    fn started(&mut self, at: Wall) {
        let (interfaces, sources) = (vec!["eth0".to_owned()], vec!["file /var/log/auth.log".to_owned()]);
        let act = Act::Started { version: VERSION, pid: 812, interfaces, sources, dry_run: false };
        self.waiting.push(Write::Act { at, uid: None, act });
    }

    fn incident(&mut self, at: Wall) {
        let block = self.block(at);
        let took = Some(Duration::from_micros(150 + self.random.below(400)));
        if self.random.one_of(REFUSED) {
            let protection =
                Protection { target: block.target, protected: block.target, by: Protector::Session };
            let refused = Refused { block, because: Refusal::Protected(protection) };
            self.waiting.push(Write::Refused { refused: refused.into(), at });
        } else if self.random.one_of(FAILED) {
            self.ended(block.into(), End::Failed, at);
        } else {
            let block = Arc::new(block);
            let uid = (block.origin == Origin::Operator).then_some(1000);
            self.waiting.push(Write::Blocked {
                block: Arc::clone(&block),
                at: Wall(at.0 + 300),
                took,
                uid,
                from: (0, 0),
                dry_run: false,
            });
            let ends = match block.expires {
                Some(_) if self.random.one_of(LIFTED) => Wall(at.0 + 30 * SECOND),
                Some(expiry) => expiry.wall,
                None => return,
            };
            self.ends.push(Reverse((ends, block.target)));
            self.standing.insert(block.target, block);
        }
    }

    fn block(&mut self, at: Wall) -> Block {
        let mut target = self.target();
        // One that is blocked does not come through.
        while self.standing.contains_key(&target) {
            target = self.target();
        }
        if self.random.one_of(5000) {
            let expires = Some(self.expiry(at, 7 * DAY));
            let reason = "scans, says our provider".into();
            let plain =
                Block { attempts: 0, rule: None, reason, origin: Origin::Operator, ..self.plain(at, target) };
            return Block { expires, ..plain };
        }
        let mut hundredth = self.random.below(100);
        let [first, ..] = RULES;
        let rule = RULES.into_iter().find(|rule| {
            let found = hundredth < rule.3;
            hundredth = hundredth.saturating_sub(rule.3);
            found
        });
        let (id, level, description, _, seconds, attempts) = rule.unwrap_or(first);
        let users: Vec<Arc<str>> =
            (0..1 + self.random.below(u64::from(attempts.min(4)))).map(|_| self.user()).collect();
        let user = users.first().cloned().unwrap_or_default();
        let stamp = clock::rfc3339(at);
        let evidence = (0..attempts).map(|attempt| {
            let port = 32_768 + (at.0 / 7 + i64::from(attempt) * 13) % 28_000;
            format!(
                "{stamp} gate sshd[{}]: Invalid user {user} from {} port {port}",
                port % 9000,
                target.address()
            )
            .into()
        });
        Block {
            rule: Some(RuleRef { id: RuleId(id), level, description: description.into() }),
            reason: description.into(),
            expires: Some(self.expiry(at, seconds * SECOND)),
            evidence: evidence.collect(),
            attempts,
            users,
            ..self.plain(at, target)
        }
    }

    fn plain(&self, at: Wall, target: Target) -> Block {
        Block {
            target,
            created: at,
            expires: None,
            measure: Measure::default(),
            rule: None,
            reason: "".into(),
            origin: Origin::Rule,
            offences: 1,
            attempts: 1,
            users: Vec::new(),
            evidence: Vec::new(),
        }
    }

    fn expiry(&self, at: Wall, micros: i64) -> Expiry {
        let wall = Wall(at.0 + micros);
        Expiry { mono: self.now.mono_at(wall), wall }
    }

    /// One of the sources; of ten one is IPv6.
    fn target(&mut self) -> Target {
        let source = if self.random.one_of(4) { self.random.below(100) } else { self.random.below(SOURCES) };
        let bits = Random(source).next();
        if source % 10 == 7 {
            let bits = 0x2001_0db8 << 96 | u128::from(bits & 0xffff_ffff) << 64;
            return Target::prefix(IpAddr::V6(Ipv6Addr::from_bits(bits)), 64);
        }
        let [a, b, c, d, ..] = bits.to_be_bytes();
        // No network that has a meaning of its own.
        Target::prefix(IpAddr::V4(Ipv4Addr::new(11 + a % 100, b, c, d)), 32)
    }

    fn user(&mut self) -> Arc<str> {
        let names = USERS.len() as u64;
        let place = self.random.below(2 * names);
        match usize::try_from(place).ok().and_then(|place| USERS.get(place)) {
            Some(name) => (*name).into(),
            None => format!("user{}", self.random.below(100_000)).into(),
        }
    }

    fn end_until(&mut self, at: Wall) -> Result<(), Box<dyn Error>> {
        while let Some(Reverse((ends, target))) =
            self.ends.peek().copied().filter(|Reverse((ends, _))| *ends <= at)
        {
            self.ends.pop();
            let Some(block) = self.standing.remove(&target) else { continue };
            let expired = block.expires.is_some_and(|expiry| expiry.wall <= ends);
            self.ended(block, if expired { End::Expired } else { End::Lifted }, ends);
            self.flush(BATCH)?;
        }
        Ok(())
    }

    fn ended(&mut self, block: Arc<Block>, end: End, at: Wall) {
        let packets = if self.random.one_of(3) { self.random.below(40) } else { 0 };
        let (reason, uid) = match end {
            End::Lifted => (Some("by uid 1000: a customer".to_owned()), Some(1000)),
            End::Failed => (Some("the kernel refused it: no space left".to_owned()), None),
            _ => (None, None),
        };
        self.waiting.push(Write::Ended { block, end, at, packets, bytes: packets * 60, reason, uid });
    }

    fn flush(&mut self, at_least: usize) -> Result<(), Box<dyn Error>> {
        if self.waiting.len() >= at_least {
            self.store.write(&self.waiting)?;
            self.waiting.clear();
        }
        Ok(())
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_of(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}
