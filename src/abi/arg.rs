//! Where the caller's pointers become Rust values, and results go back.
//!
//! The rules are:
//! - NULL with a length above 0, and a length that no object can have, are `ArgumentsBad`; NULL with 0 is empty;
//! - a place for a result is checked before any work is done for it;
//! - numbers and structures may stand at any address: they are read and written unaligned;
//! - bytes that may be input and output at once are never a slice on both sides (PKCS #11 v3.2, 5.2).

use std::ffi::{c_char, c_void};

use crate::ck::CK_ULONG;
use crate::crypto::InOut;
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;
use crate::token::{Reply, Room};

/// The longest password that is looked at, in bytes; the token's own limit is far below.
const LONGEST_PIN: usize = 64 * 1024;

/// Turns a length into one that memory can have.
///
/// # Errors
/// `ArgumentsBad` above `isize::MAX`, such as `CK_UNAVAILABLE_INFORMATION`.
pub fn length(len: CK_ULONG) -> Result<usize> {
    isize::try_from(len)
        .ok()
        .and_then(|len| usize::try_from(len).ok())
        .ok_or_else(|| Error::arguments_bad("a length is larger than any memory"))
}

/// Turns a length of ours into the caller's type.
pub fn ulong(len: usize) -> CK_ULONG {
    CK_ULONG::try_from(len).expect("CK_ULONG and usize both have 64 bits")
}

/// Views input bytes.
///
/// # Errors
/// `ArgumentsBad` for NULL with a length, or a length that cannot be.
///
/// # Safety
/// For `'a`, `start` is NULL or valid for reads of `len` bytes that nothing writes to.
pub unsafe fn bytes<'a>(start: *const u8, len: CK_ULONG) -> Result<&'a [u8]> {
    let len = length(len)?;
    match (start.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Error::arguments_bad("a buffer is NULL although its length is not 0")),
        // SAFETY: not NULL, and the caller vouches for `len` readable bytes.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(start, len) }),
    }
}

/// Takes bytes for a text.
///
/// # Errors
/// `ArgumentsBad` when they are not UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Error::arguments_bad("a text is not UTF-8"))
}

/// Views a text.
///
/// # Errors
/// `ArgumentsBad` as [`bytes`], and when it is not UTF-8.
///
/// # Safety
/// As [`bytes`].
pub unsafe fn text_at<'a>(start: *const u8, len: CK_ULONG) -> Result<&'a str> {
    // SAFETY: as the caller vouches.
    text(unsafe { bytes(start, len) }?)
}

/// Takes a buffer and the address of its length, where a caller may want neither: then both are NULL.
///
/// # Errors
/// `ArgumentsBad` for a buffer without a length, or a length that cannot be.
///
/// # Safety
/// As [`out`].
pub unsafe fn optional_out(start: *mut u8, len: *mut CK_ULONG) -> Result<Option<Out>> {
    match start.is_null() && len.is_null() {
        true => Ok(None),
        // SAFETY: as the caller vouches.
        false => unsafe { out(start, len) }.map(Some),
    }
}

/// Views room for bytes that are written while no input from the caller is in use.
///
/// # Errors
/// As [`bytes`].
///
/// # Safety
/// For `'a`, `start` is NULL or valid for writes of `len` bytes, and nothing else uses them.
pub unsafe fn bytes_mut<'a>(start: *mut u8, len: CK_ULONG) -> Result<&'a mut [u8]> {
    let len = length(len)?;
    match (start.is_null(), len) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(Error::arguments_bad("a buffer is NULL although its length is not 0")),
        // SAFETY: not NULL, and the caller vouches for `len` bytes of its own.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts_mut(start, len) }),
    }
}

/// Copies a password in; NULL is the wish for the protected authentication path (PKCS #11 v3.2, 5.6.8).
///
/// # Errors
/// `ArgumentsBad` as [`bytes`]; `PinLenRange` for an absurd length; `HostMemory`.
///
/// # Safety
/// As [`bytes`], for the duration of the call.
pub unsafe fn pin(start: *const u8, len: CK_ULONG) -> Result<Option<SecureBytes>> {
    // SAFETY: as the caller vouches.
    let pin = unsafe { bytes(start, len) }?;
    match pin.len() {
        _ if start.is_null() => Ok(None),
        len if len > LONGEST_PIN => Err(Error::from(Kind::PinLenRange)),
        _ => SecureBytes::try_copy_from(pin).map(Some),
    }
}

/// Reads one value.
///
/// # Errors
/// `ArgumentsBad` for NULL.
///
/// # Safety
/// `from` is NULL or valid for reading a `T`, at any alignment, and any bits are a `T`.
pub unsafe fn read<T: Copy>(from: *const T) -> Result<T> {
    if from.is_null() {
        return Err(Error::arguments_bad("a pointer is NULL that must not be"));
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    Ok(unsafe { from.read_unaligned() })
}

/// Reads one value that may be absent.
///
/// # Safety
/// As [`read`].
pub unsafe fn optional<T: Copy>(from: *const T) -> Option<T> {
    // SAFETY: as the caller vouches; NULL is the only error.
    unsafe { read(from) }.ok()
}

/// Copies an array, at any alignment.
///
/// # Errors
/// `ArgumentsBad` for NULL with a count, or more than `most` entries; `HostMemory`.
///
/// # Safety
/// `start` is NULL or valid for reading `count` values, and any bits are a `T`.
pub unsafe fn array<T: Copy>(start: *const T, count: CK_ULONG, most: usize) -> Result<Vec<T>> {
    let count = length(count)?;
    if count > most {
        return Err(Error::arguments_bad(format!("an array has {count} entries; at most {most} are taken")));
    }
    if start.is_null() && count > 0 {
        return Err(Error::arguments_bad("an array is NULL although its count is not 0"));
    }
    let mut values = Vec::new();
    values.try_reserve_exact(count)?;
    for index in 0..count {
        // SAFETY: `index` is below `count`, up to which the caller vouches.
        let at = unsafe { start.add(index) };
        // SAFETY: as above.
        values.push(unsafe { at.read_unaligned() });
    }
    Ok(values)
}

/// Views a C string; NULL and the empty string are `None`.
///
/// # Errors
/// `ArgumentsBad` when it is longer than `most` bytes or not UTF-8.
///
/// # Safety
/// For `'a`, `start` is NULL or a string that ends with a zero byte.
pub unsafe fn c_string<'a>(start: *const c_char, most: usize) -> Result<Option<&'a str>> {
    if start.is_null() {
        return Ok(None);
    }
    // SAFETY: reads up to the zero byte for which the caller vouches.
    let len = unsafe { libc::strnlen(start, most.saturating_add(1)) };
    if len > most {
        return Err(Error::arguments_bad(format!("a string is longer than {most} bytes")));
    }
    // SAFETY: `len` bytes were just read.
    let text = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) };
    let text = std::str::from_utf8(text).map_err(|_| Error::arguments_bad("a string is not UTF-8"))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// Checks a pointer that the standard reserves.
///
/// # Errors
/// `ArgumentsBad` when it is not NULL.
pub fn reserved(pointer: *const c_void) -> Result<()> {
    match pointer.is_null() {
        true => Ok(()),
        false => Err(Error::arguments_bad("a reserved pointer is not NULL")),
    }
}

/// Fills a fixed-width text field: blanks at the end, cut between characters (PKCS #11 v3.2, 3.1).
pub fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, from) in field.iter_mut().zip(cut(text, N).bytes()) {
        *to = from;
    }
    field
}

/// Cuts a text to at most `most` bytes, between characters.
pub fn cut(text: &str, most: usize) -> &str {
    (0..=most.min(text.len())).rev().find_map(|len| text.get(..len)).unwrap_or_default()
}

/// Where one value goes.
pub struct Place<T>(*mut T);

impl<T: Copy> Place<T> {
    /// Writes the value.
    pub fn put(&self, value: T) {
        // SAFETY: whoever made the place vouched for it.
        unsafe { self.0.write_unaligned(value) }
    }

    fn get(&self) -> T {
        // SAFETY: as above, for reading too.
        unsafe { self.0.read_unaligned() }
    }
}

/// Takes the address where one value goes.
///
/// # Errors
/// `ArgumentsBad` for NULL.
///
/// # Safety
/// As long as the place lives, `at` is NULL or valid for reading and writing a `T`, at any alignment.
pub unsafe fn place<T: Copy>(at: *mut T) -> Result<Place<T>> {
    match at.is_null() {
        true => Err(Error::arguments_bad("the pointer for a result is NULL")),
        false => Ok(Place(at)),
    }
}

/// Where a key pair's handles go.
pub struct Places<T>(Place<T>, Place<T>);

impl<T: Copy> Places<T> {
    /// Writes both values.
    pub fn put(&self, (first, second): (T, T)) {
        self.0.put(first);
        self.1.put(second);
    }
}

/// Takes the addresses where two values go.
///
/// # Errors
/// `ArgumentsBad` when either is NULL.
///
/// # Safety
/// As [`place`], for both.
pub unsafe fn places<T: Copy>(first: *mut T, second: *mut T) -> Result<Places<T>> {
    // SAFETY: as the caller vouches.
    let first = unsafe { place(first) }?;
    // SAFETY: as the caller vouches.
    Ok(Places(first, unsafe { place(second) }?))
}

/// Copies a value into a buffer if it fits; a NULL buffer fits anything and takes nothing.
///
/// # Safety
/// `start` is NULL or valid for writes of `room` bytes.
pub unsafe fn put_bytes(start: *mut u8, room: CK_ULONG, value: &[u8]) -> bool {
    if start.is_null() {
        return true;
    }
    let fits = length(room).is_ok_and(|room| value.len() <= room);
    if fits {
        // SAFETY: it fits; `value` is our own memory.
        unsafe { start.copy_from(value.as_ptr(), value.len()) };
    }
    fits
}

/// Writes one entry of an array.
///
/// # Safety
/// `start` is an array of more than `index` entries, valid for writes, at any alignment.
pub unsafe fn put_entry<T: Copy>(start: *mut T, index: usize, value: T) {
    // SAFETY: the caller vouches for the index.
    let at = unsafe { start.add(index) };
    // SAFETY: as above.
    unsafe { at.write_unaligned(value) }
}

/// Where bytes go: the standard's one convention for output (PKCS #11 v3.2, 5.2).
///
/// A NULL buffer asks for the length. A buffer that is too small gets the length and `BufferTooSmall`, and not one byte.
pub struct Out {
    start: *mut u8,
    /// `None` asks for the length.
    room: Option<usize>,
    len: Place<CK_ULONG>,
}

/// Takes a buffer and the address of its length.
///
/// # Errors
/// `ArgumentsBad` when the length has no address, or cannot be.
///
/// # Safety
/// As long as it lives, `len` is NULL or valid for reading and writing, and `start` is NULL or valid for writes of `*len` bytes.
pub unsafe fn out(start: *mut u8, len: *mut CK_ULONG) -> Result<Out> {
    // SAFETY: as the caller vouches.
    let len = unsafe { place(len) }?;
    let room = if start.is_null() { None } else { Some(length(len.get())?) };
    Ok(Out { start, room, len })
}

impl Out {
    /// Tells how much fits, for an operation that decides by it.
    pub fn room(&self) -> Room {
        self.room.map_or(Room::Query, Room::Bytes)
    }

    /// Tells whether only the length is asked for.
    pub fn is_query(&self) -> bool {
        self.room.is_none()
    }

    /// Runs an operation that gives its result as a value, and hands the result out.
    ///
    /// # Errors
    /// What the operation answers; `BufferTooSmall`.
    pub fn put(&self, operation: impl FnOnce(Room) -> Result<Reply>) -> Result<()> {
        self.reply(operation(self.room())?)
    }

    /// Hands out a text.
    ///
    /// # Errors
    /// `BufferTooSmall`.
    pub fn text(&self, text: &str) -> Result<()> {
        self.copy(text.as_bytes()).map(|_| ())
    }

    /// Hands a result out.
    ///
    /// # Errors
    /// `BufferTooSmall`.
    pub fn reply(&self, reply: Reply) -> Result<()> {
        self.settle(reply).map(|_| ())
    }

    /// Hands a result out, and tells how many bytes now stand in the buffer.
    ///
    /// # Errors
    /// `BufferTooSmall`.
    pub fn settle(&self, reply: Reply) -> Result<usize> {
        match reply {
            Reply::Needs(len) => self.needs(len),
            Reply::Written(len) => {
                self.len.put(ulong(len));
                Ok(len)
            }
            Reply::Bytes(bytes) => self.copy(&bytes),
            Reply::Wrapped(bytes) => self.copy(&bytes),
        }
    }

    /// Views the first `len` bytes that were just written, once no other view of them is alive.
    ///
    /// # Safety
    /// `len` is what [`Self::settle`] told, and nothing writes to the buffer meanwhile.
    pub unsafe fn written(&self, len: usize) -> &[u8] {
        match self.room {
            // SAFETY: `len` bytes were written at `start` and lie within its room.
            Some(room) if len <= room && len > 0 => unsafe { std::slice::from_raw_parts(self.start, len) },
            _ => &[],
        }
    }

    fn copy(&self, bytes: &[u8]) -> Result<usize> {
        match self.room {
            Some(room) if bytes.len() <= room => {
                // SAFETY: whoever made this vouched for `room` bytes; `bytes` is our own memory.
                unsafe { self.start.copy_from(bytes.as_ptr(), bytes.len()) };
                self.len.put(ulong(bytes.len()));
                Ok(bytes.len())
            }
            _ => self.needs(bytes.len()),
        }
    }

    fn needs(&self, len: usize) -> Result<usize> {
        self.len.put(ulong(len));
        match self.room {
            None => Ok(0),
            Some(_) => Err(Error::from(Kind::BufferTooSmall)),
        }
    }
}

/// Pairs input with the room of an [`Out`], for work that may be done in place.
///
/// # Errors
/// `ArgumentsBad` as [`bytes`]; `HostMemory` when the two overlap in part and there is no memory to pull them apart.
///
/// # Safety
/// For `'a`, `input` is NULL or valid for reads of `len` bytes, and nothing else writes to it or to the output.
pub unsafe fn in_out<'a>(input: *const u8, len: CK_ULONG, out: &Out) -> Result<InOut<'a>> {
    let len = length(len)?;
    if input.is_null() && len > 0 {
        return Err(Error::arguments_bad("a buffer is NULL although its length is not 0"));
    }
    // SAFETY: the caller vouches for the input, and whoever made `out` for the output.
    unsafe { InOut::new(input, len, out.start, out.room.unwrap_or(0)) }
}

/// Where a list of values goes; the same convention as [`Out`], counted in values.
pub struct List<T> {
    start: *mut T,
    /// `None` asks for the count.
    room: Option<usize>,
    count: Place<CK_ULONG>,
}

/// Takes an array and the address of its count.
///
/// # Errors
/// `ArgumentsBad` when the count has no address.
///
/// # Safety
/// As [`out`], with `*count` values of `T`.
pub unsafe fn list<T: Copy>(start: *mut T, count: *mut CK_ULONG) -> Result<List<T>> {
    // SAFETY: as the caller vouches.
    let count = unsafe { place(count) }?;
    let room = if start.is_null() { None } else { Some(length(count.get())?) };
    Ok(List { start, room, count })
}

/// Takes an array whose room is known and the address where its count goes (C_FindObjects).
///
/// # Errors
/// `ArgumentsBad` for NULL with room, or a count without an address.
///
/// # Safety
/// As [`out`], with `room` values of `T`.
pub unsafe fn filled_list<T: Copy>(start: *mut T, room: CK_ULONG, count: *mut CK_ULONG) -> Result<List<T>> {
    // SAFETY: as the caller vouches.
    let count = unsafe { place(count) }?;
    let room = length(room)?;
    match start.is_null() && room > 0 {
        true => Err(Error::arguments_bad("an array is NULL although its count is not 0")),
        false => Ok(List { start, room: Some(room), count }),
    }
}

impl<T: Copy> List<T> {
    /// Tells how many values fit.
    pub fn room(&self) -> usize {
        self.room.unwrap_or(0)
    }

    /// Hands the values out.
    ///
    /// # Errors
    /// `BufferTooSmall`, with the count that is needed.
    pub fn put(&self, values: &[T]) -> Result<()> {
        self.count.put(ulong(values.len()));
        match self.room {
            None => return Ok(()),
            Some(room) if values.len() > room => return Err(Error::from(Kind::BufferTooSmall)),
            Some(_) => {}
        }
        for (index, value) in values.iter().enumerate() {
            // SAFETY: `index` is within the room for which whoever made this vouched.
            unsafe { put_entry(self.start, index, *value) };
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions, clippy::multiple_unsafe_ops_per_block)]
mod tests {
    use super::*;
    use std::ptr::{null, null_mut};

    fn kind<T>(result: Result<T>) -> Option<Kind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn null_is_empty_only_without_a_length() {
        // SAFETY: NULL and a live array.
        unsafe {
            assert_eq!(bytes(null(), 0).unwrap(), b"");
            assert_eq!(kind(bytes(null(), 1)), Some(Kind::ArgumentsBad));
            assert_eq!(kind(bytes([0].as_ptr(), CK_ULONG::MAX)), Some(Kind::ArgumentsBad));
            assert_eq!(kind(array::<u8>(null(), 1, 9)), Some(Kind::ArgumentsBad));
            assert_eq!(kind(array::<u8>([0; 9].as_ptr(), 9, 8)), Some(Kind::ArgumentsBad));
            assert!(pin(null(), 0).unwrap().is_none());
            assert_eq!(pin(b"".as_ptr(), 0).unwrap().unwrap().len(), 0);
        }
    }

    #[test]
    fn r51_output_tells_the_needed_length_and_writes_all_or_nothing() {
        let mut buffer = [7_u8; 8];
        let mut len: CK_ULONG = 99;
        let reply = || Reply::Wrapped(vec![1, 2, 3, 4]);
        // SAFETY: `len` and `buffer` are alive.
        unsafe {
            out(null_mut(), &raw mut len).unwrap().reply(reply()).unwrap();
            assert_eq!(len, 4);
            len = 3;
            let small = out(buffer.as_mut_ptr(), &raw mut len).unwrap().reply(reply());
            assert_eq!((kind(small), len, buffer), (Some(Kind::BufferTooSmall), 4, [7; 8]));
            len = 8;
            out(buffer.as_mut_ptr(), &raw mut len).unwrap().reply(reply()).unwrap();
            assert_eq!((len, buffer), (4, [1, 2, 3, 4, 7, 7, 7, 7]));
            assert_eq!(kind(out(buffer.as_mut_ptr(), null_mut())), Some(Kind::ArgumentsBad));
        }
    }

    #[test]
    fn odd_addresses_are_read_and_written() {
        let mut memory = [0_u8; 33];
        let odd = memory.as_mut_ptr().wrapping_add(1).cast::<CK_ULONG>();
        let mut count: CK_ULONG = 3;
        // SAFETY: three numbers fit behind the odd address.
        unsafe {
            list(odd, &raw mut count).unwrap().put(&[5, 6, 7]).unwrap();
            assert_eq!(array(odd.cast_const(), 3, 3).unwrap(), [5, 6, 7]);
            count = 2;
            assert_eq!(kind(list(odd, &raw mut count).unwrap().put(&[8, 9, 9])), Some(Kind::BufferTooSmall));
            assert_eq!((count, read(odd.cast_const()).unwrap()), (3, 5));
        }
    }

    #[test]
    fn text_fields_are_blank_padded_and_cut_between_characters() {
        assert_eq!(&padded::<6>("ab"), b"ab    ");
        assert_eq!(&padded::<3>("abc\u{e9}"), b"abc");
        assert_eq!(&padded::<4>("abc\u{e9}"), b"abc ");
    }

    #[test]
    fn strings_are_bounded_and_utf8() {
        // SAFETY: literals that end with a zero byte.
        unsafe {
            assert_eq!(c_string(null(), 8).unwrap(), None);
            assert_eq!(c_string(c"".as_ptr(), 8).unwrap(), None);
            assert_eq!(c_string(c"/a/b".as_ptr(), 4).unwrap(), Some("/a/b"));
            assert_eq!(kind(c_string(c"/a/bc".as_ptr(), 4)), Some(Kind::ArgumentsBad));
            assert_eq!(kind(c_string(c"\xff".as_ptr(), 4)), Some(Kind::ArgumentsBad));
        }
    }
}
