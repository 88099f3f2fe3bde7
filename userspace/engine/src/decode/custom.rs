//! Decoders of the user's own: a regular expression for the messages of some programs.
//!
//! The text comes from strangers, so the expression works on bytes: `.`, `\S` and their like take any byte, also what is
//! no UTF-8, lest a client slip through with a name that is not. Matching takes time in proportion to the message,
//! whatever the expression, and an expression is bounded in size.

use std::borrow::Cow;
use std::collections::HashMap;

use regex::bytes::{Regex, RegexBuilder};

use super::sshd::is_sshd;
use super::{peer, repeated};
use crate::event::{Event, EventKind, Trace};
use crate::record::Record;

/// Bytes that a compiled expression, and the table that it fills while it works, may take.
const MOST_BYTES: usize = 1 << 20;

/// The names of the groups: the source, the user, and when it happened.
pub const GROUPS: [&str; 3] = ["srcip", "user", "time"];

/// A decoder of the user's own.
#[derive(Clone, Debug)]
pub struct Decoder {
    name: String,
    programs: Vec<String>,
    regex: Regex,
    /// The numbers of the groups.
    source: usize,
    user: Option<usize>,
    time: Option<usize>,
    attack: bool,
}

/// Why a text is no expression that a decoder can work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecoderError {
    /// The syntax is wrong: where, in characters from 1 where that is known, and what.
    #[error("not a regular expression{}: {message}", column.map_or(String::new(), |n| format!(", at its character {n}")))]
    Syntax {
        /// The place in the expression.
        column: Option<usize>,
        /// What is wrong there.
        message: String,
    },
    /// It is too large.
    #[error(
        "the regular expression takes more than {MOST_BYTES} bytes of memory; make its repetitions smaller"
    )]
    TooLarge,
    /// No group finds the source.
    #[error("the regular expression names no source; put `(?P<srcip>…)` around the address")]
    NoSource,
}

impl Decoder {
    /// A decoder called `name` for the messages of `programs`, compared to the whole name that a record's header gives.
    /// `attack`: whether what it finds is evidence of hostile behaviour.
    ///
    /// # Errors
    /// The expression is faulty, too large, or has no group `srcip`.
    pub fn new(
        name: String,
        programs: Vec<String>,
        expression: &str,
        attack: bool,
    ) -> Result<Decoder, DecoderError> {
        let regex = RegexBuilder::new(expression)
            .unicode(false)
            // A message of the journal can hold line ends, and a client may have put them there.
            .dot_matches_new_line(true)
            .size_limit(MOST_BYTES)
            .dfa_size_limit(MOST_BYTES)
            .build()
            .map_err(|error| DecoderError::of(&error, expression))?;
        let group = |wanted: &str| regex.capture_names().position(|name| name == Some(wanted));
        let [source, user, time] = GROUPS.map(group);
        Ok(Decoder {
            name,
            programs,
            source: source.ok_or(DecoderError::NoSource)?,
            user,
            time,
            attack,
            regex,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of its groups, also those that mean nothing here.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.regex.capture_names().flatten()
    }

    fn read<'a>(&self, message: &'a [u8]) -> Option<Found<'a>> {
        let groups = self.regex.captures(message)?;
        let text = |number: Option<usize>| groups.get(number?).map(|found| found.as_bytes());
        let event = Event {
            kind: EventKind::Custom,
            source: text(Some(self.source)).and_then(peer::address),
            sourceless: false,
            port: None,
            user: text(self.user).map(Cow::Borrowed),
            invalid_user: false,
            attack: self.attack,
            trace: if self.attack { Trace::Own } else { Trace::None },
            repeated: 1,
            detail: b"",
            decoder: Cow::Owned(self.name.clone()),
        };
        Some(Found { event, time: text(self.time) })
    }
}

/// Two decoders are equal where they are written alike.
impl PartialEq for Decoder {
    fn eq(&self, other: &Decoder) -> bool {
        self.name == other.name
            && self.programs == other.programs
            && self.regex.as_str() == other.regex.as_str()
            && self.attack == other.attack
    }
}

impl Eq for Decoder {}

impl DecoderError {
    /// Reads the drawing that the crate makes of a fault: the expression, indented by four, a caret below the place, and
    /// the reason on the last line. An expression of several lines is drawn otherwise.
    fn of(error: &regex::Error, expression: &str) -> DecoderError {
        if let regex::Error::CompiledTooBig(_) = error {
            return DecoderError::TooLarge;
        }
        let drawing = error.to_string();
        let carets =
            |line: &&str| line.trim_start().starts_with('^') && line.trim().bytes().all(|b| b == b'^');
        let caret = drawing.lines().rfind(carets);
        let column = caret.and_then(|line| line.find('^')).and_then(|at| at.checked_sub(3));
        let reason = drawing.lines().last().unwrap_or_default();
        DecoderError::Syntax {
            column: column.filter(|_| !expression.contains('\n')),
            message: reason.strip_prefix("error: ").unwrap_or(reason).to_owned(),
        }
    }
}

/// What a decoder found.
pub(crate) struct Found<'a> {
    pub(crate) event: Event<'a>,
    /// The text of the group `time`.
    pub(crate) time: Option<&'a [u8]>,
}

/// The user's decoders, in the order in which they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoders {
    decoders: Vec<Decoder>,
    /// For each program the places of its decoders.
    by_program: HashMap<Vec<u8>, Vec<usize>>,
}

impl Decoders {
    /// `decoders`, of which the first that fits a message reads it.
    pub fn new(decoders: Vec<Decoder>) -> Decoders {
        let mut by_program: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (place, decoder) in decoders.iter().enumerate() {
            for program in &decoder.programs {
                let places = by_program.entry(program.clone().into_bytes()).or_default();
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        }
        Decoders { decoders, by_program }
    }

    /// The decoders, in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Decoder> {
        self.decoders.iter()
    }

    /// The programs that they are for, beside sshd: in order, each once.
    pub fn programs(&self) -> Vec<String> {
        let mut programs: Vec<String> =
            self.decoders.iter().flat_map(|decoder| decoder.programs.clone()).collect();
        programs.retain(|program| !is_sshd(program.as_bytes()));
        programs.sort_unstable();
        programs.dedup();
        programs
    }

    /// What the first decoder that fits makes of `record`.
    pub(crate) fn decode<'a>(&self, record: &Record<'a>) -> Option<Found<'a>> {
        if self.decoders.is_empty() {
            return None;
        }
        let places = self.by_program.get(record.program)?;
        let message = record.message.trim_ascii();
        let (times, message) = repeated(message).unwrap_or((1, message));
        let mut found =
            places.iter().find_map(|&place| self.decoders.get(place)?.read(message.trim_ascii()))?;
        found.event.repeated = times;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NGINX: &str = r#"^\S+ (?P<user>.*) was refused, client: (?P<srcip>[0-9a-fA-F.:]+)$"#;

    fn decoder(expression: &str) -> Result<Decoder, DecoderError> {
        Decoder::new("web".into(), vec!["nginx".into()], expression, true)
    }

    fn decoders(expressions: &[&str]) -> Decoders {
        Decoders::new(expressions.iter().map(|text| decoder(text).unwrap()).collect())
    }

    fn record<'a>(program: &'a [u8], message: &'a [u8]) -> Record<'a> {
        Record { time: None, host: b"", program, pid: Some(7), message }
    }

    #[test]
    fn the_groups_are_read() {
        let decoders = decoders(&[NGINX]);
        let read = |program, message| decoders.decode(&record(program, message)).map(|found| found.event);
        let event = read(b"nginx", b"* root was refused, client: ::ffff:203.0.113.7 ").unwrap();
        assert_eq!(event.source, "203.0.113.7".parse().ok());
        assert_eq!((event.user.as_deref(), event.name()), (Some(&b"root"[..]), "web"));
        assert_eq!((event.kind, event.attack, event.trace), (EventKind::Custom, true, Trace::Own));
        let folded = b"message repeated 3 times: [ * root was refused, client: 203.0.113.7]";
        assert_eq!(read(b"nginx", folded).unwrap().repeated, 3);
        assert_eq!(read(b"apache", b"* root was refused, client: 203.0.113.7"), None);
        assert_eq!(read(b"nginx", b"all is well"), None);
    }

    #[test]
    fn what_is_no_address_is_no_source() {
        let decoders = decoders(&[r"client: (?P<srcip>\S+)"]);
        for text in ["example.org", "203.0.113", "203.0.113.7,", "0203.0.113.7", "203.0.113.7/32"] {
            let message = format!("client: {text}");
            let event = decoders.decode(&record(b"nginx", message.as_bytes())).unwrap().event;
            assert_eq!((event.source, event.user), (None, None), "{text}");
        }
    }

    #[test]
    fn a_name_that_is_no_text_hides_nothing() {
        let decoders = decoders(&[NGINX]);
        let message = b"* \xff\xfe\n\xc3 was refused, client: 203.0.113.7";
        let event = decoders.decode(&record(b"nginx", message)).unwrap().event;
        assert_eq!(event.user.as_deref(), Some(&b"\xff\xfe\n\xc3"[..]));
    }

    #[test]
    fn the_first_that_fits_reads() {
        let decoders = decoders(&["^a (?P<srcip>.*)", "^(a|b) (?P<srcip>.*) (?P<user>.*)"]);
        let user = |message: &'static [u8]| {
            decoders.decode(&record(b"nginx", message)).unwrap().event.user.map(Cow::into_owned)
        };
        assert_eq!((user(b"a 1 2"), user(b"b 1 2")), (None, Some(b"2".to_vec())));
    }

    #[test]
    fn faulty_expressions() {
        let fault = |text| decoder(text).unwrap_err().to_string();
        assert_eq!(fault("^(?P<srcip>.*"), "not a regular expression, at its character 2: unclosed group");
        assert_eq!(
            fault("client: (.*)"),
            "the regular expression names no source; put `(?P<srcip>…)` around the address"
        );
        assert!(fault("(?P<srcip>a{1000}{1000})").contains("make its repetitions smaller"));
        assert!(fault("(?P<srcip>a)(?P<srcip>b)").contains("duplicate"));
        assert_eq!(fault("(?x)\n(?P<srcip>.*)\n)"), "not a regular expression: unopened group");
    }

    proptest! {
        #[test]
        fn no_message_panics(message in prop::collection::vec(any::<u8>(), 0..200)) {
            let decoders = decoders(&[NGINX, r"(?P<srcip>\S*) (?P<user>.*) (?P<time>.*)"]);
            decoders.decode(&record(b"nginx", &message));
        }

        /// However the name looks, the address is the one at the end.
        #[test]
        fn no_name_moves_the_address(name in "[ -~]{0,40}( was refused, client: 198.51.100.9)?") {
            let message = format!("* {name} was refused, client: 203.0.113.7");
            let decoders = decoders(&[NGINX]);
            let event = decoders.decode(&record(b"nginx", message.as_bytes())).unwrap().event;
            prop_assert_eq!(event.source, "203.0.113.7".parse().ok());
        }
    }
}
