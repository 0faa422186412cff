mod index_damage;
mod kill;
