//! The real dispatch through sequences of reloads, without a network and on a clock that tests move.

mod book;
mod checks;
mod drive;
mod file;
mod found;
mod reload;
