"""The report page of a pack, or of a directory of packs.

In the order of the data::

    pack -> pack_statistics -> statistics      sizes, ranks, spectra and errors, as values
    statistics -> module_grid                  tensors by module and depth
    module_grid -> heat_map, spectrum_plot     pictures, as SVG
    pictures, tables -> sections -> page       one HTML file, made of `markup`
    page -> browser -> write_report            optionally a PNG of it
"""
