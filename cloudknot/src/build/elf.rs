//! What an executable asks the machine for when it starts, read from the file. Does not know what it does then.

use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, elf};

/// The libraries that it asks for, and the loader that is to bring them; none if it is static.
pub(crate) fn needs(file: &ElfFile64<'_, Endianness>) -> object::Result<Vec<String>> {
    let mut needs = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let table = file.elf_dynamic_table()?;
    for entry in &table {
        if entry.tag == elf::DT_NEEDED {
            needs.push(text(table.string(entry)?));
        }
    }
    for segment in file.elf_program_headers() {
        if let Some(loader) = segment.interpreter(file.endian(), file.data())? {
            needs.push(text(loader));
        }
    }
    Ok(needs)
}
