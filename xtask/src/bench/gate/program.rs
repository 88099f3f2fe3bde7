//! The bench's own programs, instruction by instruction: the limits and the generator.

use std::os::fd::{AsRawFd, OwnedFd};

use super::sys::Code;

/// XDP_DROP and XDP_PASS, from the kernel's `enum xdp_action`.
pub(super) const DROP: u32 = 1;
pub(super) const PASS: u32 = 2;

/// Helpers, by their numbers in `enum bpf_func_id`.
const MAP_LOOKUP_ELEM: u32 = 1;
const GET_PRANDOM_U32: u32 = 7;
const REDIRECT: u32 = 23;

// Codes of instructions (Documentation/bpf/standardization/instruction-set.rst).
const MOV: u8 = 0xb7;
const MOV_REGISTER: u8 = 0xbf;
const ADD: u8 = 0x07;
const ADD_REGISTER: u8 = 0x0f;
const AND: u8 = 0x57;
const XOR: u8 = 0xa7;
const SHIFT_RIGHT: u8 = 0x77;
const MODULO_32: u8 = 0x94;
const MULTIPLY_32: u8 = 0x24;
const SHIFT_RIGHT_32: u8 = 0x74;
const LOAD_64: u8 = 0x18;
const ADD_ATOMICALLY: u8 = 0xdb;
const ADD_32: u8 = 0x04;
const TO_BIG_ENDIAN: u8 = 0xdc;
const LOAD_WORD: u8 = 0x61;
const STORE_WORD: u8 = 0x63;
const STORE_HALF: u8 = 0x6b;
const JUMP_IF_GREATER: u8 = 0x2d;
const JUMP_IF_ZERO: u8 = 0x15;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// An instruction: its code, the registers that it writes and reads, its offset, its constant.
fn op(code: u8, to: u8, from: u8, offset: u16, constant: u32) -> u64 {
    u64::from(code) | u64::from(from << 4 | to) << 8 | u64::from(offset) << 16 | u64::from(constant) << 32
}

/// Returns `verdict` for every packet, and does nothing else.
pub(super) fn always(verdict: u32) -> Code {
    vec![op(MOV, 0, 0, 0, verdict), op(EXIT, 0, 0, 0, 0)]
}

/// Sends every frame out of the interface as it is.
pub(super) fn redirect(interface: u32) -> Code {
    vec![op(MOV, 1, 0, 0, interface), op(MOV, 2, 0, 0, 0), op(CALL, 0, 0, 0, REDIRECT), op(EXIT, 0, 0, 0, 0)]
}

/// Drops every frame after it has found one value of an array of 2 to the power of `bits`, chosen by the frame's IPv4 source, and has
/// counted it and its bytes there: what a lookup costs at the least where the table does not fit into the CPU's caches.
pub(super) fn drop_and_count(array: &OwnedFd, bits: u32) -> Code {
    // A map's descriptor in an instruction of two words (BPF_PSEUDO_MAP_FD).
    let array = u32::try_from(array.as_raw_fd()).unwrap_or(0);
    vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(LOAD_WORD, 3, 1, 4, 0),
        op(MOV_REGISTER, 4, 2, 0, 0),
        op(ADD, 4, 0, 0, 30),
        op(JUMP_IF_GREATER, 4, 3, 14, 0),
        op(LOAD_WORD, 5, 2, 26, 0),
        op(TO_BIG_ENDIAN, 5, 0, 0, 32),
        op(MULTIPLY_32, 5, 0, 0, 0x9e37_79b1),
        op(SHIFT_RIGHT_32, 5, 0, 0, 32 - bits),
        op(STORE_WORD, 10, 5, 0xfffc, 0),
        op(MOV_REGISTER, 2, 10, 0, 0),
        op(ADD, 2, 0, 0, 0xffff_fffc),
        op(LOAD_64, 1, 1, 0, array),
        0,
        op(CALL, 0, 0, 0, MAP_LOOKUP_ELEM),
        op(JUMP_IF_ZERO, 0, 0, 3, 0),
        op(MOV, 1, 0, 0, 1),
        op(ADD_ATOMICALLY, 0, 1, 0, 0),
        op(ADD_ATOMICALLY, 0, 1, 8, 0),
        op(MOV, 0, 0, 0, DROP),
        op(EXIT, 0, 0, 0, 0),
    ]
}

/// Where the frame of [`super::frame::syn`] has what the program below writes.
pub(super) struct Places {
    /// Its length.
    pub(super) length: u32,
    /// The IPv4 source.
    pub(super) source: u16,
    /// The checksums that it goes into, each with the folded sum over everything but the source.
    pub(super) checksums: [(u16, u32); 2],
}

/// Gives every frame a random source out of `count` addresses that begin with `first`, with checksums that are right, and
/// sends it out of the interface.
pub(super) fn redirect_from(interface: u32, first: u32, count: u32, places: &Places) -> Code {
    let mut code = vec![
        op(LOAD_WORD, 7, 1, 0, 0),
        op(LOAD_WORD, 8, 1, 4, 0),
        op(MOV_REGISTER, 1, 7, 0, 0),
        op(ADD, 1, 0, 0, places.length),
        op(MOV, 0, 0, 0, DROP),
    ];
    let check = code.len();
    code.extend([
        op(CALL, 0, 0, 0, GET_PRANDOM_U32),
        op(MODULO_32, 0, 0, 0, count),
        op(ADD_32, 0, 0, 0, first),
        op(MOV_REGISTER, 1, 0, 0, 0),
        op(TO_BIG_ENDIAN, 1, 0, 0, 32),
        op(STORE_WORD, 7, 1, places.source, 0),
        // r2: the sum of the two halves of the source.
        op(MOV_REGISTER, 2, 0, 0, 0),
        op(SHIFT_RIGHT, 2, 0, 0, 16),
        op(AND, 0, 0, 0, 0xffff),
        op(ADD_REGISTER, 2, 0, 0, 0),
    ]);
    for (place, rest) in places.checksums {
        code.extend([op(MOV_REGISTER, 3, 2, 0, 0), op(ADD, 3, 0, 0, rest)]);
        for _ in 0..2 {
            code.extend([
                op(MOV_REGISTER, 4, 3, 0, 0),
                op(SHIFT_RIGHT, 4, 0, 0, 16),
                op(AND, 3, 0, 0, 0xffff),
                op(ADD_REGISTER, 3, 4, 0, 0),
            ]);
        }
        code.extend([
            op(XOR, 3, 0, 0, 0xffff),
            op(TO_BIG_ENDIAN, 3, 0, 0, 16),
            op(STORE_HALF, 7, 3, place, 0),
        ]);
    }
    code.extend(redirect(interface));
    // A frame that is too short goes to the exit, which is the last instruction.
    let skip = u16::try_from(code.len() - check - 1).unwrap_or(0);
    code.insert(check, op(JUMP_IF_GREATER, 1, 8, skip, 0));
    code
}
