"""GeoAlign in the Processing toolbox, in models, batches, ``qgis_process`` and scripts."""
