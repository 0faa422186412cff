mod experiments;
mod faults;
mod index_damage;
mod kill;
