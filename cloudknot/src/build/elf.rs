//! Reads the shared libraries and the loader that an ELF executable needs.

use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, elf};

/// Returns the shared libraries and the loader that the executable needs; empty if it is static.
pub(crate) fn needs(file: &ElfFile64<'_, Endianness>) -> object::Result<Vec<String>> {
    let mut needs = Vec::new();
    let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let table = file.elf_dynamic_table()?;
    for entry in &table {
        if entry.tag == elf::DT_NEEDED {
            needs.push(string(table.string(entry)?));
        }
    }
    for segment in file.elf_program_headers() {
        if let Some(loader) = segment.interpreter(file.endian(), file.data())? {
            needs.push(string(loader));
        }
    }
    Ok(needs)
}
