//! `[[decoder]]`: decoders of the user's own, in the same files as rules.

use xdpban_engine::decode::{Decoder, GROUPS};
use xdpban_engine::event::EventKind;

use super::document::Section;
use super::faults::{Faults, Place};
use super::rules::required;
use super::{keys, values};

/// The most decoders.
const MAX_DECODERS: usize = 256;

/// The definition of one decoder.
pub(super) struct Definition {
    place: Place,
    name: String,
    /// None where something in the definition is faulty.
    decoder: Option<Decoder>,
}

/// The user's decoders, from all files.
#[derive(Default)]
pub(super) struct Definitions(Vec<Definition>);

impl Definitions {
    /// Takes up a definition.
    pub(super) fn define(&mut self, definition: Definition, faults: &mut Faults) {
        if let Some(first) = self.0.iter().find(|other| other.name == definition.name) {
            let message = format!("decoder `{}` is defined at {} already", definition.name, first.place);
            faults.add(&definition.place, message);
        } else if self.0.len() == MAX_DECODERS {
            faults.add(&definition.place, format!("there are more than {MAX_DECODERS} decoders"));
        } else {
            self.0.push(definition);
        }
    }

    /// The names, also those of faulty decoders.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|definition| definition.name.as_str())
    }

    /// The decoders that are sound, in the order of the files.
    pub(super) fn sound(&self) -> Vec<Decoder> {
        self.0.iter().filter_map(|definition| definition.decoder.clone()).collect()
    }
}

impl Definition {
    /// Reads a `[[decoder]]`; none where it has no name of its own.
    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> Option<Definition> {
        let before = faults.len();
        let name = required(section, "a decoder", "name", faults, name);
        let programs =
            required(section, "a decoder", "program", faults, |v| values::several(v, values::program));
        let regex = required(section, "a decoder", "regex", faults, values::string);
        let attack = section.value("attack", faults, values::boolean).unwrap_or(true);
        let name = name?;
        let decoder = programs.zip(regex).and_then(|(programs, regex)| {
            let place = section.place_of("regex");
            match Decoder::new(name.clone(), programs, regex, attack) {
                Ok(decoder) => {
                    for group in decoder.groups() {
                        // Groups may have names of the user's own, but a slip in one of these would go unseen.
                        if let Some(near) = keys::nearest(group, GROUPS).filter(|near| *near != group) {
                            faults.add(
                                &place,
                                format!("`regex`: the group `{group}` means nothing; did you mean `{near}`?"),
                            );
                        }
                    }
                    Some(decoder)
                }
                Err(error) => {
                    faults.add(&place, format!("`regex`: {error}"));
                    None
                }
            }
        });
        let sound = faults.len() == before;
        Some(Definition { place: section.place.clone(), name, decoder: decoder.filter(|_| sound) })
    }
}

/// The name of a decoder, which stands for its events wherever those of sshd have the name of their kind.
fn name(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let name = values::line(value)?;
    let odd = |c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c);
    if name.contains(odd) {
        return Err(format!(
            "a name is made of letters, digits and `-`, `_`, `.`; `{}` is not",
            keys::short(&name)
        ));
    }
    if name == "sshd" || EventKind::ALL.iter().any(|kind| kind.name() == name) {
        return Err(format!("`{name}` has a meaning of its own; take another name, such as `my-{name}`"));
    }
    Ok(name)
}
