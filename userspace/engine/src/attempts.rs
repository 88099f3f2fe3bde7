//! Attempts, not lines: sshd tells of one try in up to three lines, and of none in many.
//!
//! Lines are tied to their connection by host, decoder and process. A process number is used again, so another address
//! or port means another connection. Lines without a process are tied by address and port, and lines with neither stand
//! alone. As many connections are kept as the caller allows; beyond, the one quiet for longest is forgotten.
//!
//! Some lines of an attack name no address, and come before any that does (`User root not allowed because account is
//! locked`). They wait for the next line of their connection that has one.

use std::borrow::Cow;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use hashbrown::DefaultHashBuilder;

use crate::event::{Event, EventKind, Trace};
use crate::lru::Lru;
use crate::moment::Moment;
use crate::protect::Login;
use crate::record::Record;

/// For how long the process number alone ties a line to a connection. It covers the 120 seconds of silence that sshd
/// grants by default (LoginGraceTime) before it closes a connection and has PAM sum up.
const LINGER: Duration = Duration::from_secs(150);

/// The most lines that wait for an address. sshd names it when the connection ends at the latest.
const WAITING: usize = 1024;

/// The longest text of a waiting line that is kept, in bytes.
const TEXT: usize = 64;

/// The name of a connection: a keyed hash, so that nobody outside can make two connections meet in one name.
pub(crate) type ConnectionId = u64;

/// The hash of a name: itself, as it is a keyed hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only for keys of other types, of which there are none.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, name: u64) {
        self.0 = name;
    }
}

/// What a line adds to what is known of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// The source: the line's own, or that of its connection.
    pub(crate) source: IpAddr,
    /// The attempts that the line is the first to tell of.
    pub(crate) attempts: u32,
    /// How much it counts for the rules that it matches: its attempts or, where it is not about attempts, how many times
    /// it happened.
    pub(crate) weight: u32,
    /// When the connection's first line was written.
    pub(crate) began: Moment,
}

/// An attack whose line names no address.
#[derive(Debug)]
pub(crate) struct Unattributed {
    kind: EventKind,
    user: Option<Box<[u8]>>,
    invalid_user: bool,
    trace: Trace,
    repeated: u32,
    detail: Box<[u8]>,
    at: Moment,
}

impl Unattributed {
    fn new(event: &Event<'_>, at: Moment) -> Unattributed {
        let cut = |text: &[u8]| text.get(..TEXT).unwrap_or(text).into();
        Unattributed {
            kind: event.kind,
            user: event.user.as_deref().map(cut),
            invalid_user: event.invalid_user,
            trace: event.trace,
            repeated: event.repeated,
            detail: cut(event.detail),
            at,
        }
    }

    /// The event with the address of `line`.
    pub(crate) fn attributed_to<'a>(&'a self, line: &Event<'a>) -> Event<'a> {
        Event {
            kind: self.kind,
            source: line.source,
            sourceless: false,
            port: line.port,
            user: self.user.as_deref().map(Cow::Borrowed),
            invalid_user: self.invalid_user,
            attack: true,
            trace: self.trace,
            repeated: self.repeated,
            detail: &self.detail,
            decoder: line.decoder.clone(),
        }
    }

    /// The name that was tried.
    pub(crate) fn into_user(self) -> Option<Vec<u8>> {
        self.user.map(Vec::from)
    }
}

#[derive(Debug)]
struct Connection {
    source: IpAddr,
    port: Option<u16>,
    began: Moment,
    last: Moment,
    /// Whether its end was told, after which it lends its address to no other line.
    ended: bool,
    announced: u32,
    failed: u32,
    pam: u32,
    pam_said: u32,
    own: u32,
}

impl Connection {
    fn new(source: IpAddr, port: Option<u16>, at: Moment) -> Connection {
        Connection {
            source,
            port,
            began: at,
            last: at,
            ended: false,
            announced: 0,
            failed: 0,
            pam: 0,
            pam_said: 0,
            own: 0,
        }
    }

    /// Whether a line that names `source` and `port` can be of this connection.
    fn is_of(&self, source: Option<IpAddr>, port: Option<u16>, at: Moment) -> bool {
        let Some(source) = source else {
            return !self.ended && at.since(self.last) <= LINGER;
        };
        source == self.source
            && match (self.port, port) {
                (Some(known), Some(port)) => known == port,
                _ => at.since(self.last) <= LINGER,
            }
    }

    /// The attempts so far: each trace tells of the same ones, so the largest holds, and what stands alone comes on top.
    fn attempts(&self) -> u32 {
        let told = self.announced.max(self.failed).max(self.pam).max(self.pam_said);
        told.saturating_add(self.own)
    }

    /// Takes note of a trace, and returns how many attempts it is the first to tell of.
    fn add(&mut self, trace: Trace, repeated: u32) -> u32 {
        let before = self.attempts();
        let (tally, by) = match trace {
            Trace::None => return 0,
            Trace::Announced => (&mut self.announced, repeated),
            Trace::Failed => (&mut self.failed, repeated),
            Trace::Pam(failures) => (&mut self.pam, failures.saturating_mul(repeated)),
            Trace::PamSaid => (&mut self.pam_said, repeated),
            Trace::Own => (&mut self.own, repeated),
            Trace::Ending if before == 0 => (&mut self.own, repeated),
            Trace::Ending => return 0,
        };
        *tally = tally.saturating_add(by);
        self.attempts() - before
    }
}

/// The connections that lines were seen of.
#[derive(Debug)]
pub(crate) struct Connections {
    table: Lru<ConnectionId, Connection, BuildHasherDefault<AsItIs>>,
    waiting: Lru<ConnectionId, Unattributed, BuildHasherDefault<AsItIs>>,
    hasher: DefaultHashBuilder,
}

impl Connections {
    pub(crate) fn new(capacity: usize) -> Connections {
        Connections {
            table: Lru::new(capacity),
            waiting: Lru::new(WAITING),
            hasher: DefaultHashBuilder::default(),
        }
    }

    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.table.set_capacity(capacity);
    }

    /// The name of the connection that a line is of; none where nothing ties it to others. What a process of another
    /// program does is not known, so each event of a decoder of the user's own stands alone.
    pub(crate) fn id(&self, event: &Event<'_>, record: &Record<'_>) -> Option<ConnectionId> {
        if event.kind == EventKind::Custom {
            return None;
        }
        match (record.pid, event.source, event.port) {
            (Some(pid), ..) => {
                let mut hasher = self.hasher.build_hasher();
                hasher.write(record.host);
                hasher.write(event.decoder.as_bytes());
                // With the length of the first, no other pair of texts is the same in a row.
                hasher.write_u64((record.host.len() as u64) << 32 | u64::from(pid));
                Some(hasher.finish())
            }
            (None, Some(source), Some(port)) => {
                Some(self.hasher.hash_one((record.host, &event.decoder, source, port)))
            }
            (None, ..) => None,
        }
    }

    /// A name for the connection of a login that is known from the store alone.
    pub(crate) fn id_of_login(&self, login: &Login) -> ConnectionId {
        self.hasher.hash_one((login.address, login.port, login.pid))
    }

    /// Keeps an attack without a source until a line of its connection names one.
    pub(crate) fn wait(&mut self, id: Option<ConnectionId>, event: &Event<'_>, at: Moment) {
        if let Some(id) = id {
            self.waiting.insert(id, Unattributed::new(event, at));
        }
    }

    /// The attack that waits for the source that `event` names.
    pub(crate) fn attributed(
        &mut self,
        id: Option<ConnectionId>,
        event: &Event<'_>,
        at: Moment,
    ) -> Option<Unattributed> {
        if self.waiting.len() == 0 || event.source.is_none() {
            return None;
        }
        let waiting = self.waiting.remove(&id?)?;
        // A probe's end told again by the line itself is one probe.
        let told_again = waiting.trace == Trace::Ending && matches!(event.trace, Trace::Own | Trace::Ending);
        let fits = at.since(waiting.at) <= LINGER && !begins_anew(event) && !told_again;
        fits.then_some(waiting)
    }

    /// Counts an event that was written at `at`. None where no source is known.
    pub(crate) fn observe(
        &mut self,
        id: Option<ConnectionId>,
        event: &Event<'_>,
        at: Moment,
    ) -> Option<Tally> {
        let mut alone;
        let connection = match (id, event.source) {
            (None, None) => return None,
            (None, Some(source)) => {
                alone = Connection::new(source, event.port, at);
                &mut alone
            }
            (Some(id), None) => self.table.touch(&id).filter(|known| known.is_of(None, event.port, at))?,
            (Some(id), Some(source)) => {
                let known = self.table.touch_or_insert_with(id, || Connection::new(source, event.port, at));
                if !known.is_of(Some(source), event.port, at) {
                    *known = Connection::new(source, event.port, at);
                }
                known
            }
        };
        connection.port = connection.port.or(event.port);
        connection.last = connection.last.max(at);
        // The connection itself, address and port, speaks again where it only seemed to have ended.
        let revived = event.source.is_some() && event.port.is_some();
        connection.ended = is_the_end(event.kind) || (connection.ended && !revived);
        let attempts = connection.add(event.trace, event.repeated);
        let weight = if is_about_attempts(event) { attempts } else { event.repeated };
        Some(Tally { source: connection.source, attempts, weight, began: connection.began })
    }
}

/// Whether a line shows that what was said before under its process number was said of an earlier connection, or came
/// after a login.
fn begins_anew(event: &Event<'_>) -> bool {
    matches!(
        event.kind,
        EventKind::ConnectionFrom | EventKind::Accepted | EventKind::SessionOpened | EventKind::SessionClosed
    ) || (event.kind == EventKind::Disconnected && !event.attack)
}

/// Whether nothing more is to come from a connection. A probe's end is told twice, a refusal before sshd hangs up.
fn is_the_end(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::ConnectionClosed
            | EventKind::ConnectionReset
            | EventKind::Disconnected
            | EventKind::SessionClosed
    )
}

/// Whether an event belongs to a try to log in. The others, such as a reverse mapping that fails, are counted as often
/// as they happen.
fn is_about_attempts(event: &Event<'_>) -> bool {
    event.trace != Trace::None || event.kind.accompanies_attempts()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Mono;

    const A: &str = "203.0.113.7";
    const B: &str = "203.0.113.8";

    struct Log {
        connections: Connections,
        seconds: u64,
    }

    impl Log {
        fn new() -> Log {
            Log { connections: Connections::new(100), seconds: 1000 }
        }

        fn event(kind: EventKind, source: Option<&str>, port: Option<u16>, trace: Trace) -> Event<'static> {
            Event {
                kind,
                source: source.map(|source| source.parse().unwrap()),
                sourceless: false,
                port,
                user: None,
                invalid_user: false,
                attack: true,
                trace,
                repeated: 1,
                detail: b"",
                decoder: "sshd".into(),
            }
        }

        fn record(pid: Option<u32>) -> Record<'static> {
            Record { time: None, host: b"gw1", program: b"sshd", pid, message: b"" }
        }

        fn see(&mut self, pid: impl Into<Option<u32>>, event: &Event<'_>) -> Option<Tally> {
            let id = self.connections.id(event, &Log::record(pid.into()));
            let at = Moment::from(Mono(0).after(Duration::from_secs(self.seconds)));
            self.connections.observe(id, event, at)
        }

        /// The attempts that a line with this trace of one process, from one port, is the first to tell of.
        fn attempts(&mut self, pid: u32, port: u16, trace: Trace) -> u32 {
            self.see(pid, &Log::event(EventKind::FailedPassword, Some(A), Some(port), trace))
                .unwrap()
                .attempts
        }
    }

    #[test]
    fn one_try_in_three_lines_is_one_attempt() {
        let mut log = Log::new();
        let lines = [Trace::Announced, Trace::Pam(1), Trace::PamSaid, Trace::Failed, Trace::Ending];
        assert_eq!(lines.map(|trace| log.attempts(7, 22, trace)), [1, 0, 0, 0, 0]);
    }

    #[test]
    fn each_further_try_counts() {
        let mut log = Log::new();
        let lines = [
            Trace::Pam(1),
            Trace::Failed,
            Trace::Failed,
            Trace::Failed,
            Trace::Own,
            Trace::Pam(2),
            Trace::Pam(1),
        ];
        assert_eq!(lines.map(|trace| log.attempts(7, 22, trace)), [1, 0, 1, 1, 1, 0, 1]);
    }

    #[test]
    fn an_end_counts_only_where_nothing_else_did() {
        let mut log = Log::new();
        assert_eq!([Trace::Ending, Trace::Ending].map(|trace| log.attempts(7, 22, trace)), [1, 0]);
    }

    #[test]
    fn repeated_messages_count_each() {
        let mut log = Log::new();
        log.attempts(7, 22, Trace::Failed);
        let repeated =
            Event { repeated: 4, ..Log::event(EventKind::FailedPassword, Some(A), Some(22), Trace::Failed) };
        assert_eq!(log.see(7, &repeated).unwrap().attempts, 4);
    }

    #[test]
    fn a_process_number_used_again_is_another_connection() {
        let mut log = Log::new();
        assert_eq!(log.attempts(7, 22, Trace::Failed), 1);
        assert_eq!(log.attempts(7, 23, Trace::Announced), 1);
        let other = Log::event(EventKind::InvalidUser, Some(B), Some(23), Trace::Announced);
        assert_eq!(log.see(7, &other).unwrap().attempts, 1);
        assert_eq!(log.attempts(8, 23, Trace::Announced), 1);
        log.seconds += 151;
        let portless = Log::event(EventKind::InvalidUser, Some(B), None, Trace::Announced);
        assert_eq!(log.see(8, &portless).unwrap().attempts, 1);
    }

    #[test]
    fn a_line_without_an_address_takes_that_of_its_connection() {
        let mut log = Log::new();
        let locked = Log::event(EventKind::UserNotAllowed, None, None, Trace::Announced);
        assert_eq!(log.see(7, &locked), None);
        log.see(7, &Log::event(EventKind::ConnectionFrom, Some(A), Some(22), Trace::None));
        let tally = log.see(7, &locked).unwrap();
        assert_eq!((tally.source, tally.attempts), (A.parse().unwrap(), 1));
        log.seconds += 151;
        assert_eq!(log.see(7, &locked), None, "the process number has been used again by now");
    }

    #[test]
    fn a_connection_that_ended_lends_its_address_to_nobody() {
        let mut log = Log::new();
        log.attempts(7, 22, Trace::Failed);
        log.see(7, &Log::event(EventKind::ConnectionClosed, Some(A), Some(22), Trace::Ending));
        let locked = Log::event(EventKind::UserNotAllowed, None, None, Trace::Announced);
        assert_eq!(log.see(7, &locked), None);
    }

    #[test]
    fn a_connection_that_speaks_again_after_its_end_has_not_ended() {
        let mut log = Log::new();
        log.see(7, &Log::event(EventKind::ConnectionReset, Some(A), Some(22), Trace::Ending));
        log.see(7, &Log::event(EventKind::ConnectionFrom, Some(A), Some(22), Trace::None));
        let reset = Log::event(EventKind::ConnectionReset, None, None, Trace::Ending);
        assert_eq!(log.see(7, &reset).map(|tally| tally.source), A.parse().ok());
    }

    #[test]
    fn without_a_process_address_and_port_tie_lines() {
        let mut log = Log::new();
        let lines = [(Some(22), Trace::Announced), (Some(22), Trace::Failed), (Some(23), Trace::Failed)];
        let counted = lines.map(|(port, trace)| {
            log.see(None, &Log::event(EventKind::FailedPassword, Some(A), port, trace)).unwrap().attempts
        });
        assert_eq!(counted, [1, 0, 1]);
        let alone = Log::event(EventKind::ConnectionRefused, Some(A), None, Trace::Own);
        assert_eq!(
            [log.see(None, &alone), log.see(None, &alone)].map(|tally| tally.unwrap().attempts),
            [1, 1]
        );
    }

    #[test]
    fn what_is_not_about_attempts_counts_as_often_as_it_happens() {
        let mut log = Log::new();
        let mut weight = |kind| {
            let tally = log.see(7, &Log::event(kind, Some(A), Some(22), Trace::None)).unwrap();
            assert_eq!(tally.attempts, 0);
            tally.weight
        };
        assert_eq!(weight(EventKind::ReverseMapping), 1);
        assert_eq!(weight(EventKind::ReverseMapping), 1);
        assert_eq!(weight(EventKind::FailedPublickey), 0);
        assert_eq!(weight(EventKind::PostponedKeyboardInteractive), 0);
    }

    fn trace() -> impl Strategy<Value = Trace> {
        prop_oneof![
            Just(Trace::None),
            Just(Trace::Announced),
            Just(Trace::Failed),
            (0..5u32).prop_map(Trace::Pam),
            Just(Trace::PamSaid),
            Just(Trace::Own),
            Just(Trace::Ending),
            Just(Trace::Pam(u32::MAX)),
        ]
    }

    proptest! {
        /// The increases add up to the attempts of the connection, whatever the order of its lines.
        #[test]
        fn increases_add_up(lines in prop::collection::vec((trace(), 1..4u32), 0..40)) {
            let mut connection = Connection::new(A.parse().unwrap(), Some(22), Moment::from(Mono(0)));
            let mut sum = 0u64;
            for (trace, repeated) in lines {
                sum += u64::from(connection.add(trace, repeated));
                prop_assert_eq!(sum, u64::from(connection.attempts()));
            }
        }
    }
}
