"""The sections of the page, one module each with `section_of(context)`; `contents` has their order."""
