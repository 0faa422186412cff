//! What the fuzz targets ask: the properties that the engine's own tests ask of bytes made by chance, of bytes that are led
//! by what they reach. `make fuzz` runs them.

pub mod retrieval;
