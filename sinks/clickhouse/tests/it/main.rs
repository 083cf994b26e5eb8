//! The front against the real engine, as drivers use it. `WEIR_LIBCHDB` names the library, else the
//! cache of the local parts; without it the tests fail, since a skipped test proves nothing.

mod abort;
mod driver;
mod http;
mod life;
mod server;
