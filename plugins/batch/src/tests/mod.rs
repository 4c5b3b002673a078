mod blocks;
mod callback;
mod fakes;
mod poll;
mod stop;
