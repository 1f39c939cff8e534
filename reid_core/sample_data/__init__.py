"""Sample data: drawn pedestrians seen by several cameras, where images of real people cannot be had."""

from reid_core.sample_data.world import draw_people, write_sample_data

__all__ = ["draw_people", "write_sample_data"]
