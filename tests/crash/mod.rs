mod experiments;
mod index_damage;
mod kill;
