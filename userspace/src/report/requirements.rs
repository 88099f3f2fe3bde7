//! Which requirement each part of a report answers. The requirements are those of the HIPAA Security Rule, 45 CFR Part
//! 164, Subpart C, in short.

use serde::Serialize;

/// A part of a report. Every format that is for people has them all, in this order and under these titles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What happened, in a few sentences.
    Summary,
    /// When incidents began.
    Timeline,
    /// How fast the responses were.
    ResponseTimes,
    /// What came of the incidents, and what was dropped.
    Outcomes,
    /// Who attacked, as whom, and which rules told.
    Patterns,
    /// Incidents without a response that took effect.
    Unanswered,
    /// Every response in short.
    Responses,
    /// What operators did.
    Acts,
    /// What became of configuration and allowlist.
    Changes,
    /// When the controller watched.
    Watch,
    /// The record that the report was taken from.
    Record,
    /// This statement.
    Requirements,
}

/// A requirement, and where it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Requirement {
    /// Where it stands.
    pub citation: &'static str,
    /// What it asks for, in short.
    pub asks: &'static str,
    /// What in a report is about it.
    pub answered_by: &'static str,
    /// Where.
    #[serde(skip)]
    pub sections: &'static [Section],
}

/// What the statement does not say.
pub(super) const CAVEAT: &str = "This report supports the documentation of these requirements; it does not certify that they are \
     met. It covers one host, and on it what xdpban found in the logs that it watched. Whether an incident was more than \
     an attempt, and what else it calls for, is for people to judge. A copy of this report is itself documentation to be \
     kept.";

/// The requirements that a report is about.
pub(super) const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        citation: "45 CFR 164.308(a)(6)(i)",
        asks: "Have and follow procedures that address security incidents",
        answered_by: "The rules by which this host acted, changes to them, and the times in which it did not watch",
        sections: &[Section::Patterns, Section::Changes, Section::Watch],
    },
    Requirement {
        citation: "45 CFR 164.308(a)(6)(ii)",
        asks: "Identify and respond to suspected or known security incidents",
        answered_by: "What was found, when, from where and by which rule; how fast it was answered; what was not answered",
        sections: &[
            Section::Summary,
            Section::Timeline,
            Section::ResponseTimes,
            Section::Patterns,
            Section::Unanswered,
        ],
    },
    Requirement {
        citation: "45 CFR 164.308(a)(6)(ii)",
        asks: "Mitigate, to the extent practicable, the harmful effects of incidents that are known",
        answered_by: "The packets that were dropped because of the incidents, and what operators did by hand",
        sections: &[Section::Outcomes, Section::Acts],
    },
    Requirement {
        citation: "45 CFR 164.308(a)(6)(ii)",
        asks: "Document security incidents and their outcomes",
        answered_by: "Each response with its outcome, and the record behind it, in which changes made afterwards show",
        sections: &[Section::Outcomes, Section::Responses, Section::Record],
    },
    Requirement {
        citation: "45 CFR 164.316(b)(2)(i)",
        asks: "Keep the documentation for six years",
        answered_by: "How far back the record reaches",
        sections: &[Section::Record],
    },
];

impl Section {
    /// Every section, in order.
    pub const ALL: [Section; 12] = [
        Section::Summary,
        Section::Timeline,
        Section::ResponseTimes,
        Section::Outcomes,
        Section::Patterns,
        Section::Unanswered,
        Section::Responses,
        Section::Acts,
        Section::Changes,
        Section::Watch,
        Section::Record,
        Section::Requirements,
    ];

    /// Its number, from 1.
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// Its name in addresses.
    pub fn id(self) -> &'static str {
        match self {
            Section::Summary => "summary",
            Section::Timeline => "timeline",
            Section::ResponseTimes => "response-times",
            Section::Outcomes => "outcomes",
            Section::Patterns => "patterns",
            Section::Unanswered => "unanswered",
            Section::Responses => "responses",
            Section::Acts => "acts",
            Section::Changes => "changes",
            Section::Watch => "watching",
            Section::Record => "record",
            Section::Requirements => "requirements",
        }
    }

    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Section::Summary => "Summary",
            Section::Timeline => "Timeline",
            Section::ResponseTimes => "Response times",
            Section::Outcomes => "Outcomes and mitigation",
            Section::Patterns => "Sources, user names and rules",
            Section::Unanswered => "Incidents without a response",
            Section::Responses => "Responses",
            Section::Acts => "Operators’ acts",
            Section::Changes => "Configuration and allowlist",
            Section::Watch => "Watching",
            Section::Record => "The record",
            Section::Requirements => "Requirements",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_numbered_in_their_order() {
        for (section, number) in Section::ALL.into_iter().zip(1..) {
            assert_eq!(section.number(), number);
        }
    }
}
