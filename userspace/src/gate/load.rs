//! Loading the object, and taking over the maps that an earlier controller left.

use std::fs;
use std::io::{self, Read};
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use aya::maps::{Map, MapData, MapError, MapInfo, MapType};
use aya::programs::{SchedClassifier, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use xdpban_common::{
    Control, FILTER_WORDS, HOMES_PER_ENTRY, MAX_PROBES, Slot4, Slot6, Special, Totals, global, map, program,
};
use xdpban_engine::measure::Measure;
use xdpban_engine::target::Target;
use xdpban_engine::time::Mono;

use super::error::GateError;
use super::maps::{Maps, Network4, Network6, reading};
use super::measures::{MEASURES, measure_at};
use super::pins::{self, Pins};
use super::shared::Shared;
use super::slots::{self, Slots};
use super::sys::KernelMap;
use super::tables::{self, Capacity, Counts, Entry, Insertion, Memory, Tables};
use super::{Options, family, selftest, v1};
use crate::error::chain;

/// The object, compiled from the package `xdpban-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("XDPBAN_BPF_OBJECT_COPY"));

/// The ring buffer of traced packets where no trace was asked for: the least that there can be, one page.
const NO_TRACE_BYTES: u32 = 4096;

/// Most allowed networks, of each family.
const ALLOWED: u32 = 65_536;

/// The maps that mean something together alone: all are taken over, or none.
const TABLES: [&str; 7] =
    [map::CONTROL, map::BLOCK4, map::BLOCK6, map::PREFIX4, map::PREFIX6, map::FILTER4, map::FILTER6];

/// What is loaded.
pub(super) struct Loaded {
    pub(super) programs: Ebpf,
    pub(super) tables: Tables,
    pub(super) maps: Maps,
    /// Whether an earlier controller's tables were all there.
    pub(super) took_over: bool,
}

/// How one map must be for its pin to be taken over.
pub(super) struct Shape {
    name: &'static str,
    pub(super) kind: MapType,
    pub(super) key_size: usize,
    pub(super) value_size: usize,
    pub(super) capacity: u32,
}

impl Shape {
    fn new<K, V>(name: &'static str, kind: MapType, capacity: u32) -> Shape {
        Shape { name, kind, key_size: size_of::<K>(), value_size: size_of::<V>(), capacity }
    }

    fn array<V>(name: &'static str, capacity: u32) -> Shape {
        Shape::new::<u32, V>(name, MapType::Array, capacity)
    }

    fn block4(slots: u32) -> Shape {
        Shape::array::<Slot4>(map::BLOCK4, slots)
    }

    fn block6(slots: u32) -> Shape {
        Shape::array::<Slot6>(map::BLOCK6, slots)
    }

    fn special() -> Shape {
        Shape::array::<Special>(map::SPECIAL, MEASURES)
    }

    fn control() -> Shape {
        Shape::array::<Control>(map::CONTROL, 1)
    }

    /// The maps that are pinned.
    pub(super) fn all(capacity: Capacity) -> [Shape; 11] {
        let words = u32::try_from(FILTER_WORDS).unwrap_or(u32::MAX);
        [
            Shape::control(),
            Shape::special(),
            Shape::block4(slots(capacity)),
            Shape::block6(slots(capacity)),
            Shape::new::<Network4, u32>(map::PREFIX4, MapType::LpmTrie, capacity.prefixes),
            Shape::new::<Network6, u32>(map::PREFIX6, MapType::LpmTrie, capacity.prefixes),
            Shape::array::<u64>(map::FILTER4, words),
            Shape::array::<u64>(map::FILTER6, words),
            Shape::new::<Network4, u32>(map::ALLOW4, MapType::LpmTrie, ALLOWED),
            Shape::new::<Network6, u32>(map::ALLOW6, MapType::LpmTrie, ALLOWED),
            Shape::new::<u32, Totals>(map::TOTALS, MapType::PerCpuArray, 1),
        ]
    }

    /// Whether keys and values of the map are what this build reads and writes.
    fn has_layout(&self, info: &MapInfo) -> bool {
        info.map_type().is_ok_and(|kind| kind == self.kind)
            && usize::try_from(info.key_size()) == Ok(self.key_size)
            && usize::try_from(info.value_size()) == Ok(self.value_size)
    }

    /// Whether the map can be taken for one that this build would make.
    fn fits(&self, info: &MapInfo) -> bool {
        self.has_layout(info) && info.max_entries() == self.capacity
    }
}

/// How many slots each table of blocks has: homes, and those behind the last of them.
fn slots(capacity: Capacity) -> u32 {
    homes(capacity).saturating_add(MAX_PROBES)
}

fn homes(capacity: Capacity) -> u32 {
    capacity.blocks.saturating_add(capacity.prefixes).saturating_mul(HOMES_PER_ENTRY)
}

/// Loads the programs with the maps that are pinned, as far as they fit, and with new ones otherwise. New maps take
/// over the live entries of those that they replace, and are pinned once everything else has succeeded.
pub(super) fn load(pins: &Pins, options: &Options, now: Mono) -> Result<Loaded, GateError> {
    let capacity = Capacity { blocks: options.blocks, prefixes: options.prefixes };
    let constants = Constants::new(options, capacity);
    let mut loader = constants.loader(capacity);
    let shapes = Shape::all(capacity);
    let found: Vec<Pinned> = shapes.iter().map(|shape| pinned(pins, shape)).collect::<Result<_, _>>()?;
    let mut took_over = found.iter().all(|found| matches!(found, Pinned::Fits | Pinned::OtherCapacity));
    let tables_fit = TABLES.iter().all(|name| {
        shapes.iter().zip(&found).any(|(shape, found)| shape.name == *name && *found == Pinned::Fits)
    });
    let mut fresh = Vec::new();
    for (shape, found) in shapes.iter().zip(&found) {
        if *found == Pinned::Fits && (tables_fit || !TABLES.contains(&shape.name)) {
            loader.map_pin_path(shape.name, pins.map(shape.name));
        } else {
            fresh.push(shape.name);
        }
    }
    let mut old = Vec::new();
    if !tables_fit {
        old.extend(pinned_entries(pins, map::BLOCK4)?);
        old.extend(pinned_entries(pins, map::BLOCK6)?);
        if !pins.map(map::BLOCK4).exists() && v1::is_there(pins) {
            old.extend(v1::entries(pins)?);
            took_over = true;
        }
    }

    let programs = tested(&mut loader, options)?;
    for shape in &Shape::all(capacity) {
        check(&programs, shape)?;
    }
    let memory = memory(&programs, capacity)?;
    if fresh.contains(&map::CONTROL) {
        // The old seed, where there is one: should this process be killed while it replaces pins, the old and the new ones
        // still mean something together.
        let old = pinned_array::<Control>(pins, &Shape::control())?;
        set_seed(&memory.control, old.map(|old| old.read(0).seed))?;
    }
    let mut tables = Tables::new(memory, capacity)?;
    let maps = maps(&programs)?;
    take_over(&mut tables, old, now);
    for name in fresh {
        pin(map_data(&programs, name)?, name, &pins.map(name))?;
    }
    Ok(Loaded { programs, tables, maps, took_over })
}

/// The programs, of which another instance has passed the self-test. Verifying them takes a good part of a start: both are
/// loaded at once, when it is seen that there is memory for the tables.
fn tested(loader: &mut EbpfLoader<'_>, options: &Options) -> Result<Ebpf, GateError> {
    let mut programs = create(loader)?;
    thread::scope(|scope| {
        let test = scope.spawn(|| {
            let (mut programs, mut tables) = selftest_instance(options)?;
            selftest::run(&mut programs, &mut tables)
        });
        let loaded = [program::XDP, program::PROBE].map(|name| xdp(&mut programs, name).map(drop));
        test.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        loaded.into_iter().collect::<Result<(), _>>()
    })?;
    Ok(programs)
}

/// Tables for the self-test alone.
const SELFTEST: Capacity = Capacity { blocks: 64, prefixes: 64 };

/// The constants of the programs.
struct Constants {
    trace_level: u8,
    homes: u32,
}

impl Constants {
    fn new(options: &Options, capacity: Capacity) -> Constants {
        Constants {
            trace_level: if options.trace_packets { aya_log::Level::Info as u8 } else { 0 },
            homes: homes(capacity),
        }
    }

    /// What makes an instance with tables of this size.
    fn loader(&self, capacity: Capacity) -> EbpfLoader<'_> {
        let mut loader = EbpfLoader::new();
        loader
            .btf(None) // Nothing is relocated against the kernel's types.
            .override_global(aya_log::LEVEL, &self.trace_level, true)
            .override_global(global::HOMES4, &self.homes, true)
            .override_global(global::HOMES6, &self.homes, true);
        if self.trace_level == 0 {
            loader.map_max_entries(map::TRACE, NO_TRACE_BYTES);
        }
        for shape in Shape::all(capacity) {
            loader.map_max_entries(shape.name, shape.capacity);
        }
        loader
    }
}

/// An instance that nothing else shares, with its tables.
pub(super) fn selftest_instance(options: &Options) -> Result<(Ebpf, Tables), GateError> {
    let mut programs = create(&mut Constants::new(options, SELFTEST).loader(SELFTEST))?;
    xdp(&mut programs, program::XDP)?;
    let tables = Tables::new(memory(&programs, SELFTEST)?, SELFTEST)?;
    Ok((programs, tables))
}

/// What stands where a map is to be pinned.
#[derive(PartialEq, Eq)]
enum Pinned {
    Missing,
    /// A map that can be taken over as it is.
    Fits,
    /// A map of this layout and another capacity.
    OtherCapacity,
    /// Something else, which means nothing here.
    Foreign,
}

fn pinned(pins: &Pins, shape: &Shape) -> Result<Pinned, GateError> {
    let path = pins.map(shape.name);
    let Some(map) = open_map(&path)? else { return Ok(Pinned::Missing) };
    let info = map_info(&map, &path)?;
    if shape.fits(&info) {
        return Ok(Pinned::Fits);
    }
    if !shape.has_layout(&info) {
        log::warn!("{} is not a map of this version; a new one takes its place", path.display());
        return Ok(Pinned::Foreign);
    }
    Ok(Pinned::OtherCapacity)
}

/// Every entry that is pinned in tables of a layout that is known here.
pub(super) fn all_pinned_entries(pins: &Pins) -> Result<Vec<(Target, Entry)>, GateError> {
    if !pins.map(map::BLOCK4).exists() && v1::is_there(pins) {
        return v1::entries(pins);
    }
    let mut entries = pinned_entries(pins, map::BLOCK4)?;
    entries.extend(pinned_entries(pins, map::BLOCK6)?);
    Ok(entries)
}

/// The entries of the table called `name` that is pinned; none where there is no such map of the layout of this build.
fn pinned_entries(pins: &Pins, name: &'static str) -> Result<Vec<(Target, Entry)>, GateError> {
    let special = pinned_array::<Special>(pins, &Shape::special())?;
    let entry = |(target, value): (Target, slots::Value)| {
        let measure = match &special {
            _ if value.special == 0 => Some(Measure::default()),
            Some(special) => measure_at(special, value.special),
            None => None,
        };
        (target, tables::entry(&value, measure))
    };
    // Walking through a table takes no seed.
    let seed = 0;
    if name == map::BLOCK4 {
        let memory = pinned_array(pins, &Shape::block4(0))?;
        return Ok(memory.map_or(Vec::new(), |memory| {
            Slots::<family::V4>::new(memory, seed).entries().map(entry).collect()
        }));
    }
    let memory = pinned_array(pins, &Shape::block6(0))?;
    Ok(memory
        .map_or(Vec::new(), |memory| Slots::<family::V6>::new(memory, seed).entries().map(entry).collect()))
}

/// The values of a pinned array, to look at only; none where it is not of this layout.
fn pinned_array<T>(pins: &Pins, shape: &Shape) -> Result<Option<Shared<T>>, GateError> {
    let path = pins.map(shape.name);
    let Some(map) = open_map(&path)? else { return Ok(None) };
    let info = map_info(&map, &path)?;
    if !shape.has_layout(&info) || info.max_entries() == 0 {
        return Ok(None);
    }
    Shared::of_map_to_read(map.fd(), info.max_entries() as usize).map(Some).map_err(reading(shape.name))
}

pub(super) fn open_map(path: &Path) -> Result<Option<MapData>, GateError> {
    let Some(fd) = pins::open(path)? else { return Ok(None) };
    MapData::from_fd(fd).map(Some).map_err(not_a_map(path))
}

pub(super) fn map_info(map: &MapData, path: &Path) -> Result<MapInfo, GateError> {
    map.info().map_err(not_a_map(path))
}

fn not_a_map(path: &Path) -> impl Fn(MapError) -> GateError {
    move |error| GateError::Pin {
        operation: "read the map",
        path: path.to_owned(),
        source: io::Error::other(error),
    }
}

/// Puts the live ones of `entries` into new tables. Where not all fit, those that would expire first are given up.
fn take_over(tables: &mut Tables, mut entries: Vec<(Target, Entry)>, now: Mono) {
    entries.retain(|(_, entry)| entry.expires_ns > now.0);
    entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.expires_ns));
    let count = entries.len();
    let given_up = tables.put_all(entries.into_iter().filter_map(|(target, entry)| {
        let insertion = Insertion { target, expires: entry.deadline(), measure: entry.measure? };
        Some((insertion, Counts { packets: entry.packets, bytes: entry.bytes }))
    }));
    if count > 0 {
        log::info!("{count} blocks of tables of another size or version are taken over");
    }
    if let Some((_, why)) = given_up.first() {
        log::warn!("{} blocks are given up that the new tables did not take: {}", given_up.len(), chain(why));
    }
}

/// Pins a new map in one step, in the place of whatever was pinned there.
fn pin(map: &MapData, name: &str, path: &Path) -> Result<(), GateError> {
    let failed = |operation| move |source| GateError::Pin { operation, path: path.to_owned(), source };
    let temporary = path.with_file_name(format!("{name}:new"));
    pins::unpin(&temporary)?;
    map.pin(&temporary).map_err(io::Error::other).map_err(failed("pin the map"))?;
    fs::rename(&temporary, path).map_err(failed("pin the map"))
}

/// Creates the maps and prepares the programs.
fn create(loader: &mut EbpfLoader<'_>) -> Result<Ebpf, GateError> {
    loader.load(OBJECT).map_err(|source| GateError::Load { source: Box::new(source) })
}

/// Makes sure that the kernel will read and write as many bytes of keys and values as there are: also where a pin
/// was replaced after it was looked at.
fn check(programs: &Ebpf, shape: &Shape) -> Result<(), GateError> {
    let info = map_data(programs, shape.name)?.info();
    if info.is_ok_and(|info| shape.fits(&info)) {
        Ok(())
    } else {
        Err(GateError::Object { name: shape.name })
    }
}

/// What the tables stand in: maps that fit.
fn memory(programs: &Ebpf, capacity: Capacity) -> Result<Memory, GateError> {
    let slots = slots(capacity) as usize;
    Ok(Memory {
        block4: shared(programs, map::BLOCK4, slots)?,
        block6: shared(programs, map::BLOCK6, slots)?,
        prefix4: KernelMap::new(fd(map_data(programs, map::PREFIX4)?, map::PREFIX4)?),
        prefix6: KernelMap::new(fd(map_data(programs, map::PREFIX6)?, map::PREFIX6)?),
        special: shared(programs, map::SPECIAL, MEASURES as usize)?,
        filter4: shared(programs, map::FILTER4, FILTER_WORDS)?,
        filter6: shared(programs, map::FILTER6, FILTER_WORDS)?,
        control: shared(programs, map::CONTROL, 1)?,
    })
}

fn shared<T>(programs: &Ebpf, name: &'static str, len: usize) -> Result<Shared<T>, GateError> {
    Shared::of_map(map_data(programs, name)?.fd(), len).map_err(reading(name))
}

/// Chooses the seed of new tables, which nobody can guess who chooses addresses to attack from.
fn set_seed(control: &Shared<Control>, old: Option<u64>) -> Result<(), GateError> {
    let seed = match old {
        Some(seed) => seed,
        None => {
            random().map_err(|source| GateError::Table { operation: "seed", table: map::CONTROL, source })?
        }
    };
    control.u64(0, offset_of!(Control, seed)).store(seed, Relaxed);
    Ok(())
}

/// A number that cannot be guessed.
fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn maps(programs: &Ebpf) -> Result<Maps, GateError> {
    let cpus = nr_cpus().map_err(|(_, source)| reading(map::TOTALS)(source))?;
    Ok(Maps {
        allow4: KernelMap::new(fd(map_data(programs, map::ALLOW4)?, map::ALLOW4)?),
        allow6: KernelMap::new(fd(map_data(programs, map::ALLOW6)?, map::ALLOW6)?),
        totals: KernelMap::new_per_cpu(fd(map_data(programs, map::TOTALS)?, map::TOTALS)?, cpus),
    })
}

pub(super) fn fd(map: &MapData, name: &'static str) -> Result<OwnedFd, GateError> {
    map.fd().as_fd().try_clone_to_owned().map_err(reading(name))
}

fn map_data<'a>(programs: &'a Ebpf, name: &'static str) -> Result<&'a MapData, GateError> {
    match programs.map(name) {
        Some(Map::LpmTrie(data) | Map::Array(data) | Map::PerCpuArray(data)) => Ok(data),
        _ => Err(GateError::Object { name }),
    }
}

/// A program of XDP, loaded into the kernel at its first use.
pub(super) fn xdp<'a>(programs: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, GateError> {
    let program: &mut Xdp =
        programs.program_mut(name).and_then(|p| p.try_into().ok()).ok_or(GateError::Object { name })?;
    if program.fd().is_err() {
        program.load().map_err(|source| GateError::Program { program: name, source: Box::new(source) })?;
    }
    Ok(program)
}

/// The program for TC, loaded into the kernel at its first use.
pub(super) fn classifier(programs: &mut Ebpf) -> Result<&mut SchedClassifier, GateError> {
    let name = program::TC;
    let program: &mut SchedClassifier =
        programs.program_mut(name).and_then(|p| p.try_into().ok()).ok_or(GateError::Object { name })?;
    if program.fd().is_err() {
        program.load().map_err(|source| GateError::Program { program: name, source: Box::new(source) })?;
    }
    Ok(program)
}
