//! Loading the object, and taking over the maps that an earlier controller left.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya::maps::{Map, MapData, MapError, MapInfo, MapType};
use aya::programs::{ProgramType, SchedClassifier, Xdp};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use xdpban_common::{Entry, Key6, PrefixEntry, Tables, Totals, global, map, program};
use xdpban_engine::target::Target;
use xdpban_engine::time::Mono;

use super::error::GateError;
use super::maps::{Blocks, Others, Place, Prefix4, Prefix6, entries_of, reading, writing};
use super::pins::{self, Pins};
use super::sys::{KernelMap, is_full};
use super::{Options, selftest};

/// The object, compiled from the package `xdpban-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("XDPBAN_BPF_OBJECT_COPY"));

/// The ring buffer of traced packets where no trace was asked for: the least that there can be, one page.
const NO_TRACE_BYTES: u32 = 4096;

/// Most allowed networks, of each family.
const ALLOWED: u32 = 65_536;

/// What is loaded.
pub(super) struct Loaded {
    pub(super) programs: Ebpf,
    pub(super) blocks: Blocks,
    pub(super) others: Others,
    /// Whether an earlier controller's tables were all there.
    pub(super) took_over: bool,
}

/// How one map must be for its pin to be taken over.
struct Shape {
    name: &'static str,
    kind: MapType,
    key_size: usize,
    value_size: usize,
    capacity: u32,
}

impl Shape {
    fn new<K, V>(name: &'static str, kind: MapType, capacity: u32) -> Shape {
        Shape { name, kind, key_size: size_of::<K>(), value_size: size_of::<V>(), capacity }
    }

    /// The tables of blocks.
    fn blocks(blocks: u32, prefixes: u32) -> [Shape; 4] {
        [
            Shape::new::<[u8; 4], Entry>(map::BLOCK4, MapType::Hash, blocks),
            Shape::new::<Key6, Entry>(map::BLOCK6, MapType::Hash, blocks),
            Shape::new::<Prefix4, PrefixEntry>(map::PREFIX4, MapType::LpmTrie, prefixes),
            Shape::new::<Prefix6, PrefixEntry>(map::PREFIX6, MapType::LpmTrie, prefixes),
        ]
    }

    /// The maps that are pinned.
    fn all(options: &Options) -> [Shape; 8] {
        let [block4, block6, prefix4, prefix6] = Shape::blocks(options.blocks, options.prefixes);
        [
            block4,
            block6,
            prefix4,
            prefix6,
            Shape::new::<Prefix4, u32>(map::ALLOW4, MapType::LpmTrie, ALLOWED),
            Shape::new::<Prefix6, u32>(map::ALLOW6, MapType::LpmTrie, ALLOWED),
            Shape::new::<u32, Tables>(map::TABLES, MapType::Array, 1),
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

/// Loads the programs with the maps that are pinned, as far as they fit, and with new ones otherwise. New maps take
/// over the live entries of those that they replace, and are pinned once everything else has succeeded.
pub(super) fn load(pins: &Pins, options: &Options, now: Mono) -> Result<Loaded, GateError> {
    let coarse_clock = u8::from(has_coarse_clock());
    let trace_level = if options.trace_packets { aya_log::Level::Info as u8 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        .btf(None) // Nothing is relocated against the kernel's types.
        .override_global(global::COARSE_CLOCK, &coarse_clock, true)
        .override_global(aya_log::LEVEL, &trace_level, true);
    if !options.trace_packets {
        loader.map_max_entries(map::TRACE, NO_TRACE_BYTES);
    }
    selftest::run(&mut create(&mut loader)?)?;

    let shapes = Shape::all(options);
    let mut fresh = Vec::new();
    let mut old_entries = Vec::new();
    let mut took_over = true;
    for shape in &shapes {
        loader.map_max_entries(shape.name, shape.capacity);
        match pinned(pins, shape)? {
            Pinned::Fits => {
                loader.map_pin_path(shape.name, pins.map(shape.name));
            }
            Pinned::Misfit(entries) => {
                old_entries.extend(entries);
                fresh.push(shape.name);
            }
            Pinned::Missing => {
                took_over = false;
                fresh.push(shape.name);
            }
        }
    }

    let mut programs = create(&mut loader)?;
    load_programs(&mut programs)?;
    for shape in &shapes {
        check(&programs, shape)?;
    }
    let blocks = blocks(&programs)?;
    let others = others(&programs)?;
    take_over(&blocks, old_entries, now)?;
    for name in fresh {
        pin(map_data(&programs, name)?, name, &pins.map(name))?;
    }
    Ok(Loaded { programs, blocks, others, took_over })
}

/// What stands where a map is to be pinned.
enum Pinned {
    Missing,
    /// A map that can be taken over as it is.
    Fits,
    /// A map of another capacity, with its entries, or one of another layout, whose entries mean nothing here.
    Misfit(Vec<(Target, Entry)>),
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
        return Ok(Pinned::Misfit(Vec::new()));
    }
    log::info!(
        "the table {} had {} entries at most and gets {}",
        shape.name,
        info.max_entries(),
        shape.capacity
    );
    Ok(Pinned::Misfit(entries_of(shape.name, fd(&map, shape.name)?).map_err(reading(shape.name))?))
}

/// The entries of the table of blocks called `name` that is pinned at `path`; none where there is no map of the layout
/// of this build.
pub(super) fn pinned_entries(name: &'static str, path: &Path) -> Result<Vec<(Target, Entry)>, GateError> {
    let Some(map) = open_map(path)? else { return Ok(Vec::new()) };
    let info = map_info(&map, path)?;
    if !Shape::blocks(0, 0).iter().any(|shape| shape.name == name && shape.has_layout(&info)) {
        return Ok(Vec::new());
    }
    entries_of(name, fd(&map, name)?).map_err(reading(name))
}

fn open_map(path: &Path) -> Result<Option<MapData>, GateError> {
    let Some(fd) = pins::open(path)? else { return Ok(None) };
    MapData::from_fd(fd).map(Some).map_err(not_a_map(path))
}

fn map_info(map: &MapData, path: &Path) -> Result<MapInfo, GateError> {
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
fn take_over(blocks: &Blocks, mut entries: Vec<(Target, Entry)>, now: Mono) -> Result<(), GateError> {
    entries.retain(|(_, entry)| entry.expires_ns > now.0);
    entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.expires_ns));
    let mut given_up = 0;
    for (target, entry) in &entries {
        let place = Place::of(target);
        match blocks.update(&place, *entry) {
            Err(error) if is_full(&error) => given_up += 1,
            result => result.map_err(writing(place.map()))?,
        }
    }
    if given_up > 0 {
        log::warn!("{given_up} blocks did not fit into the smaller tables and are given up");
    }
    Ok(())
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

/// Whether the kernel has `bpf_ktime_get_coarse_ns` (5.11). Where that cannot be told, the other clock does.
fn has_coarse_clock() -> bool {
    is_helper_supported(ProgramType::Xdp, BpfHelper::BPF_FUNC_ktime_get_coarse_ns).unwrap_or(false)
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

fn blocks(programs: &Ebpf) -> Result<Blocks, GateError> {
    Ok(Blocks {
        block4: KernelMap::new(map_fd(programs, map::BLOCK4)?),
        block6: KernelMap::new(map_fd(programs, map::BLOCK6)?),
        prefix4: KernelMap::new(map_fd(programs, map::PREFIX4)?),
        prefix6: KernelMap::new(map_fd(programs, map::PREFIX6)?),
    })
}

fn others(programs: &Ebpf) -> Result<Others, GateError> {
    let cpus = nr_cpus().map_err(|(_, source)| reading(map::TOTALS)(source))?;
    Ok(Others {
        allow4: KernelMap::new(map_fd(programs, map::ALLOW4)?),
        allow6: KernelMap::new(map_fd(programs, map::ALLOW6)?),
        tables: KernelMap::new(map_fd(programs, map::TABLES)?),
        totals: KernelMap::new_per_cpu(map_fd(programs, map::TOTALS)?, cpus),
    })
}

fn map_fd(programs: &Ebpf, name: &'static str) -> Result<OwnedFd, GateError> {
    fd(map_data(programs, name)?, name)
}

fn fd(map: &MapData, name: &'static str) -> Result<OwnedFd, GateError> {
    map.fd().as_fd().try_clone_to_owned().map_err(reading(name))
}

fn map_data<'a>(programs: &'a Ebpf, name: &'static str) -> Result<&'a MapData, GateError> {
    match programs.map(name) {
        Some(Map::HashMap(data) | Map::LpmTrie(data) | Map::Array(data) | Map::PerCpuArray(data)) => Ok(data),
        _ => Err(GateError::Object { name }),
    }
}

/// Loads every program into the kernel at once: aya's instructions name maps by descriptors, which must be open then.
fn load_programs(programs: &mut Ebpf) -> Result<(), GateError> {
    for name in [program::XDP, program::PROBE, program::RENEW] {
        xdp(programs, name)?;
    }
    classifier(programs)?;
    if let Err(error) = xdp(programs, program::XDP_FRAGS) {
        // The kernel learnt of packets in several buffers in 5.18.
        log::debug!("{error}");
    }
    Ok(())
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

/// An instance with tables of its own, for tests.
#[cfg(test)]
pub(super) fn test_instance() -> Ebpf {
    create(EbpfLoader::new().btf(None).override_global(global::COARSE_CLOCK, &1u8, true)).unwrap()
}
