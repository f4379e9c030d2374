"""All stores of series, by name."""

from benchmarks.exact.peers.moonclip_store import MoonclipDefault, MoonclipFirst
from benchmarks.exact.series import OurSeries, PlanesLinks, SeriesStore

OUR_STORES: tuple[type[SeriesStore], ...] = (OurSeries,)
PEER_STORES: tuple[type[SeriesStore], ...] = (PlanesLinks, MoonclipDefault, MoonclipFirst)
STORES: dict[str, type[SeriesStore]] = {store.name: store for store in (*OUR_STORES, *PEER_STORES)}
