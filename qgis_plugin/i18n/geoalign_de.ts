<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="de">
<context>
    <name>GeoAlign</name>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source> m/px</source>
        <translation> m/px</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source> m²</source>
        <translation> m²</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>1 match</source>
        <translation>1 Treffer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>1 tile</source>
        <translation>1 Kachel</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/style.py"/>
        <source>1.00 stronger match</source>
        <translation>1,00 stärkerer Treffer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/landcover.py"/>
        <source>A GeoTIFF with one number for each class.</source>
        <translation>Ein GeoTIFF mit einer Zahl für jede Klasse.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>A GeoTIFF with scores from 0 to 1, from “Ask the map” or “Find similar places”.</source>
        <translation>Ein GeoTIFF mit Werten von 0 bis 1, aus „Die Karte fragen“ oder „Ähnliche Orte finden“.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/outputs.py"/>
        <source>A match could not be written: is there space on the disk?</source>
        <translation>Ein Treffer konnte nicht geschrieben werden: Ist auf der Festplatte noch Platz?</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>A package that fits this computer was not found.</source>
        <translation>Es wurde kein Paket gefunden, das zu diesem Rechner passt.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>A protection program stopped the installation.</source>
        <translation>Ein Schutzprogramm hat die Installation angehalten.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>A rectangle around one example; instead of the layer, or besides it.</source>
        <translation>Ein Rechteck um ein Beispiel; statt des Layers oder zusätzlich.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/precision.py"/>
        <source>About {percent} of places at this limit are right</source>
        <translation>An dieser Grenze stimmen etwa {percent} der Stellen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Add Raster Layer…</source>
        <translation>Rasterlayer hinzufügen…</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Add an image to search</source>
        <translation>Ein Bild zum Durchsuchen hinzufügen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>Add your organisation's certificate in the options of QGIS under Authentication.</source>
        <translation>Fügen Sie das Zertifikat Ihrer Organisation in den QGIS-Optionen unter Authentifizierung hinzu.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>Address</source>
        <translation>Adresse</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>An aerial or satellite image with a coordinate reference system.</source>
        <translation>Ein Luft- oder Satellitenbild mit Koordinatenbezugssystem.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/command.py"/>
        <source>An empty command</source>
        <translation>Ein leerer Befehl</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>An engine is known; it starts with the first question.</source>
        <translation>Ein Suchdienst ist bekannt; er startet mit der ersten Frage.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/install.py"/>
        <source>Another QGIS is installing the engine.</source>
        <translation>Ein anderes QGIS installiert gerade den Suchdienst.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Any</source>
        <translation>Beliebig</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/style.py"/>
        <source>Area (m²)</source>
        <translation>Fläche (m²)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>As on the map</source>
        <translation>Wie auf der Karte</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/question.py"/>
        <source>Ask</source>
        <translation>Fragen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Ask for anything seen from above</source>
        <translation>Fragen Sie nach allem, was von oben zu sehen ist</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/teacher.py"/>
        <source>Ask something first, then click what is right and what is wrong.</source>
        <translation>Stellen Sie zuerst eine Frage und klicken Sie dann an, was richtig und was falsch ist.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/controller.py"/>
        <source>Ask the Map</source>
        <translation>Die Karte fragen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/asklayer.py"/>
        <source>Ask the map (find by text)</source>
        <translation>Die Karte fragen (mit Worten suchen)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>Ask your administrator to allow the folder of the engine.</source>
        <translation>Bitten Sie Ihre Systemverwaltung, den Ordner des Suchdienstes zuzulassen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/results.py"/>
        <source>Ask: {question}</source>
        <translation>Frage: {question}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/locator.py"/>
        <source>Asked before</source>
        <translation>Schon gefragt</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/landcover.py"/>
        <source>At least two names in English, separated by semicolons: “water; trees; buildings”.</source>
        <translation>Mindestens zwei Namen auf Englisch, durch Semikolons getrennt: „water; trees; buildings“.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>Authentication</source>
        <translation>Authentifizierung</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Auto</source>
        <translation>Automatisch</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Band shown as blue</source>
        <translation>Als Blau gezeigter Kanal</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Band shown as green</source>
        <translation>Als Grün gezeigter Kanal</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Band shown as red</source>
        <translation>Als Rot gezeigter Kanal</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Bands</source>
        <translation>Kanäle</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Best match: {score}. Lower the limit, or try other words.</source>
        <translation>Bester Treffer: {score}. Senken Sie die Grenze oder versuchen Sie andere Worte; Fragen sind auf Englisch.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>Best score of any place</source>
        <translation>Bester Wert irgendeiner Stelle</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Boxes</source>
        <translation>Rahmen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Brightness</source>
        <translation>Helligkeit</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/indexraster.py"/>
        <source>Builds the index that makes every question about an image quick.</source>
        <translation>Baut den Index auf, mit dem jede Frage an ein Bild schnell beantwortet wird.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>CPU</source>
        <translation>CPU</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Cancel Installation</source>
        <translation>Installation abbrechen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Cancelling</source>
        <translation>Wird abgebrochen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>Check</source>
        <translation>Prüfen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/web.py"/>
        <source>Check that it runs and that the address in the engine settings is right.</source>
        <translation>Prüfen Sie, ob er läuft und ob die Adresse in den Einstellungen des Suchdienstes stimmt.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/remote.py"/>
        <source>Check the address in the engine settings.</source>
        <translation>Prüfen Sie die Adresse in den Einstellungen des Suchdienstes.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/process.py"/>
        <source>Check the engine in the engine settings.</source>
        <translation>Prüfen Sie den Suchdienst in seinen Einstellungen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>Check the network, or choose a folder with the packages.</source>
        <translation>Prüfen Sie das Netzwerk oder wählen Sie einen Ordner mit den Paketen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/steps.py"/>
        <source>Checking the packages</source>
        <translation>Die Pakete werden geprüft</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Checking what is known already</source>
        <translation>Es wird geprüft, was schon bekannt ist</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Choose a Folder with Wheels</source>
        <translation>Einen Ordner mit Wheels wählen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>Choose a Python or the Command geoalign</source>
        <translation>Ein Python oder den Befehl geoalign wählen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/area.py"/>
        <source>Choose a polygon layer and select the polygons to search in</source>
        <translation>Wählen Sie einen Polygonlayer und darin die Polygone, in denen gesucht wird</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/web.py"/>
        <source>Choose an authentication with its token in the engine settings.</source>
        <translation>Wählen Sie in den Einstellungen des Suchdienstes eine Authentifizierung mit seinem Token.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Choose an image layer</source>
        <translation>Einen Bildlayer wählen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/web.py"/>
        <source>Choose another one in the engine settings, or enter the master password of QGIS.</source>
        <translation>Wählen Sie in den Einstellungen des Suchdienstes eine andere oder geben Sie das Hauptpasswort von QGIS ein.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/process.py"/>
        <source>Choose another one in the engine settings, or install the engine there.</source>
        <translation>Wählen Sie in den Einstellungen des Suchdienstes einen anderen oder installieren Sie ihn dort.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/base.py"/>
        <source>Choose one band or three bands, in the order red, green, blue.</source>
        <translation>Wählen Sie einen Kanal oder drei Kanäle in der Reihenfolge Rot, Grün, Blau.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/landcover.py"/>
        <source>Classes</source>
        <translation>Klassen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/results.py"/>
        <source>Clear Mark</source>
        <translation>Markierung entfernen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>Click what is right, right-click what is wrong. Esc ends.</source>
        <translation>Richtiges anklicken, Falsches mit rechts anklicken. Esc beendet.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>Close programs that use it, check its rights, and install again.</source>
        <translation>Schließen Sie Programme, die ihn benutzen, prüfen Sie seine Rechte und installieren Sie erneut.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Comparing</source>
        <translation>Vergleichen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/results.py"/>
        <source>Copy Coordinates</source>
        <translation>Koordinaten kopieren</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Copy Details</source>
        <translation>Einzelheiten kopieren</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Copy Report</source>
        <translation>Bericht kopieren</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Copy the details and send them to the authors of GeoAlign.</source>
        <translation>Kopieren Sie die Einzelheiten und senden Sie sie an die Autoren von GeoAlign.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>Copy the report and send it to us, or use an engine that exists already.</source>
        <translation>Kopieren Sie den Bericht und senden Sie ihn uns, oder benutzen Sie einen vorhandenen Suchdienst.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/precision.py"/>
        <source>Counted on {data}, where {prior} of the places were what was asked for. Rarer things are right less often.</source>
        <translation>Ausgezählt an {data}, wo {prior} der Stellen das Gesuchte waren. Selteneres stimmt seltener.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Cut an image into tiles</source>
        <translation>Ein Bild in Kacheln schneiden</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Cuts an image into georeferenced tiles for labelling, training or other programs, and writes the table tiles.parquet with the place of each. The command geoalign-tile --stitch puts predictions for the tiles together again as one map.</source>
        <translation>Schneidet ein Bild in georeferenzierte Kacheln zum Beschriften, zum Trainieren oder für andere Programme und schreibt die Tabelle tiles.parquet mit der Lage jeder Kachel. Der Befehl geoalign-tile --stitch fügt Vorhersagen für die Kacheln wieder zu einer Karte zusammen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Cuts an image into georeferenced tiles, with a table that says where each lies.</source>
        <translation>Schneidet ein Bild in georeferenzierte Kacheln, mit einer Tabelle, die sagt, wo jede liegt.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Cutting {name}</source>
        <translation>{name} wird geschnitten</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/question.py"/>
        <source>Describe what to find, then press Return. Alt+Down shows recent questions.</source>
        <translation>Beschreiben Sie, was gesucht wird, und drücken Sie die Eingabetaste. Alt+Ab zeigt frühere Fragen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/card.py"/>
        <source>Details</source>
        <translation>Einzelheiten</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/enginestatus.py"/>
        <source>Devices, separated by semicolons</source>
        <translation>Geräte, durch Semikolons getrennt</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/enginestatus.py"/>
        <source>Devices: {names}</source>
        <translation>Geräte: {names}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Draw a Box on the Map</source>
        <translation>Einen Rahmen auf der Karte ziehen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Drawing the layer</source>
        <translation>Der Layer wird gezeichnet</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/render.py"/>
        <source>Drawing {layer}</source>
        <translation>{layer} wird gezeichnet</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/drawing.py"/>
        <source>Drawing {width} × {height} pixels in {tiles} tiles</source>
        <translation>{width} × {height} Pixel werden in {tiles} Kacheln gezeichnet</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/indexraster.py"/>
        <source>Duration in seconds</source>
        <translation>Dauer in Sekunden</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>Engine Settings</source>
        <translation>Einstellungen des Suchdienstes</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>Engine Settings…</source>
        <translation>Einstellungen des Suchdienstes…</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>Engine address</source>
        <translation>Adresse des Suchdienstes</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Engine and help</source>
        <translation>Suchdienst und Hilfe</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/enginestatus.py"/>
        <source>Engine status</source>
        <translation>Zustand des Suchdienstes</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/enginestatus.py"/>
        <source>Engine {version}</source>
        <translation>Suchdienst {version}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>Engine: none</source>
        <translation>Suchdienst: keiner</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>Engine: not answering ({device})</source>
        <translation>Suchdienst: antwortet nicht ({device})</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>Engine: ready ({device})</source>
        <translation>Suchdienst: bereit ({device})</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Engine: starting</source>
        <translation>Suchdienst: startet</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>Engine: starts with the next question</source>
        <translation>Suchdienst: startet mit der nächsten Frage</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Engine: stopped</source>
        <translation>Suchdienst: angehalten</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>Engine: working ({device})</source>
        <translation>Suchdienst: arbeitet ({device})</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/results.py"/>
        <source>Enter zooms to a match, Y marks it as right, X as wrong, Delete clears it, N and P go on and back.</source>
        <translation>Die Eingabetaste zoomt zu einem Treffer, Y markiert ihn als richtig, X als falsch, Entf entfernt die Markierung, N und P gehen vor und zurück.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/card.py"/>
        <source>Example questions</source>
        <translation>Beispielfragen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>Example rectangle</source>
        <translation>Beispielrechteck</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>Examples</source>
        <translation>Beispiele</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/style.py"/>
        <source>Expected precision (0–1)</source>
        <translation>Erwartete Genauigkeit (0–1)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Extent</source>
        <translation>Ausdehnung</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Fetching the result</source>
        <translation>Das Ergebnis wird geholt</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>File format</source>
        <translation>Dateiformat</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/results.py"/>
        <source>Find Similar</source>
        <translation>Ähnliche finden</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>Find similar places (by example)</source>
        <translation>Ähnliche Orte finden (mit Beispielen)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Find similar: draw a box around an example on the map</source>
        <translation>Ähnliche finden: einen Rahmen um ein Beispiel auf der Karte ziehen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>Find the engine by itself</source>
        <translation>Den Suchdienst selbst finden</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Finding the matches</source>
        <translation>Die Treffer werden gesucht</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/asklayer.py"/>
        <source>Finds what a sentence names in an aerial or satellite image.</source>
        <translation>Findet in einem Luft- oder Satellitenbild, was ein Satz benennt.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/asklayer.py"/>
        <source>Finds what a sentence names in an aerial or satellite image: “parking lots with many cars”.

The matches come as boxes or outlines with a score from 0 to 1, and the score of every place as a heatmap. Questions are in English. The first question about an image builds an index beside it, which takes minutes for a large image; every later question takes seconds.

Scenes and surfaces (water, forest, car parks, roofs, fields) are found best at 0.3 to 2 metres per pixel. Small things are found better by example.</source>
        <translation>Findet in einem Luft- oder Satellitenbild, was ein Satz benennt: „parking lots with many cars“.

Die Treffer kommen als Rahmen oder Umrisse mit einem Wert von 0 bis 1, der Wert jeder Stelle als Heatmap. Fragen sind auf Englisch. Die erste Frage an ein Bild baut daneben einen Index auf, was bei einem großen Bild Minuten dauert; jede weitere Frage dauert Sekunden.

Szenen und Oberflächen (Wasser, Wald, Parkplätze, Dächer, Felder) werden bei 0,3 bis 2 Metern pro Pixel am besten gefunden. Kleines findet man besser mit Beispielen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>Finds what looks like marked places in an aerial or satellite image.</source>
        <translation>Findet in einem Luft- oder Satellitenbild, was markierten Stellen ähnlich sieht.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>Finds what looks like one or more marked places in the same image.

Give examples as a layer of polygons or points (with only the selected features, if you like), or as a rectangle. Places that must not count go into a second layer. A text in English can be added; text and examples are then judged together.

Three to ten examples of different looks work best. The first search in an image builds an index beside it; every later one takes seconds.</source>
        <translation>Findet, was einer oder mehreren markierten Stellen im selben Bild ähnlich sieht.

Geben Sie Beispiele als Layer mit Polygonen oder Punkten (auf Wunsch nur die gewählten Objekte) oder als Rechteck an. Stellen, die nicht zählen dürfen, kommen in einen zweiten Layer. Ein englischer Text kann hinzukommen; Text und Beispiele werden dann gemeinsam beurteilt.

Drei bis zehn verschieden aussehende Beispiele sind am besten. Die erste Suche in einem Bild baut daneben einen Index auf; jede weitere dauert Sekunden.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Folder</source>
        <translation>Ordner</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Folder of the tiles</source>
        <translation>Ordner der Kacheln</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Folder: {folder}</source>
        <translation>Ordner: {folder}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>Free some space and install again: what is done is kept.</source>
        <translation>Schaffen Sie Platz und installieren Sie erneut: Erledigtes bleibt erhalten.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/install.py"/>
        <source>Free some space.</source>
        <translation>Schaffen Sie Platz.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>From 0.05 to 0.99. Every pixel of a match has at least this score. 0.5 means that the question explains the place as well as everything generic together; lower values find more.</source>
        <translation>Von 0,05 bis 0,99. Jedes Pixel eines Treffers hat mindestens diesen Wert. 0,5 heißt, dass die Frage die Stelle so gut erklärt wie alles Allgemeine zusammen; kleinere Werte finden mehr.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/process.py"/>
        <source>GeoAlign is not installed in the Python chosen for the engine.</source>
        <translation>GeoAlign ist in dem Python, das für den Suchdienst gewählt ist, nicht installiert.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>Give an example: a layer or a rectangle.</source>
        <translation>Geben Sie ein Beispiel an: einen Layer oder ein Rechteck.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/landcover.py"/>
        <source>Gives every place of an image to the class whose name fits best.</source>
        <translation>Ordnet jede Stelle eines Bildes der Klasse zu, deren Name am besten passt.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/landcover.py"/>
        <source>Gives every place of an image to the one of your classes whose name fits best: “water; trees; buildings; grass”. No training is needed.

The result is a GeoTIFF with whole numbers: 0 where there is no image, 1 for the first class, 2 for the second, and so on. Names and colours come with it. Name everything that covers much ground, otherwise it goes to the class that is least wrong.</source>
        <translation>Ordnet jede Stelle eines Bildes derjenigen Ihrer Klassen zu, deren Name am besten passt: „water; trees; buildings; grass“. Trainiert werden muss nichts.

Das Ergebnis ist ein GeoTIFF mit ganzen Zahlen: 0, wo kein Bild ist, 1 für die erste Klasse, 2 für die zweite und so weiter. Namen und Farben sind dabei. Nennen Sie alles, was viel Fläche bedeckt, sonst fällt es an die Klasse, die am wenigsten falsch ist.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Ground resolution</source>
        <translation>Bodenauflösung</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Ground resolution (m per pixel)</source>
        <translation>Bodenauflösung (m pro Pixel)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/style.py"/>
        <source>Ground resolution (m/px)</source>
        <translation>Bodenauflösung (m/px)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Heatmap</source>
        <translation>Heatmap</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>Heatmap to boxes</source>
        <translation>Heatmap zu Rahmen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Heatmap, Boxes</source>
        <translation>Heatmap, Rahmen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Heatmap, Outlines</source>
        <translation>Heatmap, Umrisse</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Help</source>
        <translation>Hilfe</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/histogram.py"/>
        <source>Histogram of matches</source>
        <translation>Histogramm der Treffer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>How closely to look, in metres per pixel. Empty means what suits the model. Small things need small values, which take longer.</source>
        <translation>Wie genau hingesehen wird, in Metern pro Pixel. Leer heißt: was zum Modell passt. Kleines braucht kleine Werte, die länger dauern.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>How much neighbouring tiles share: 20%, 64px or 30m.</source>
        <translation>Wie viel benachbarte Kacheln teilen: 20%, 64px oder 30m.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Image</source>
        <translation>Bild</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Image layer</source>
        <translation>Bildlayer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Image layer to search</source>
        <translation>Bildlayer, der durchsucht wird</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/indexraster.py"/>
        <source>Index folder</source>
        <translation>Ordner des Index</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Install</source>
        <translation>Installieren</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/install.py"/>
        <source>Install Python 3.12 from python.org, then install again.</source>
        <translation>Installieren Sie Python 3.12 von python.org und dann erneut.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>Install Python 3.12, or choose a folder with packages for this system.</source>
        <translation>Installieren Sie Python 3.12 oder wählen Sie einen Ordner mit Paketen für dieses System.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>Install beside QGIS</source>
        <translation>Neben QGIS installieren</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/command.py"/>
        <source>Install it in the engine settings of the panel.</source>
        <translation>Installieren Sie ihn in den Einstellungen des Suchdienstes.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/client.py"/>
        <source>Install the engine again in the engine settings, or update the plugin.</source>
        <translation>Installieren Sie den Suchdienst in seinen Einstellungen neu oder aktualisieren Sie die Erweiterung.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>Install the package python3-venv of your system, or Python from python.org.</source>
        <translation>Installieren Sie das Paket python3-venv Ihres Systems oder Python von python.org.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/enginestatus.py"/>
        <source>Installed models, separated by semicolons</source>
        <translation>Installierte Modelle, durch Semikolons getrennt</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/steps.py"/>
        <source>Installing GeoAlign</source>
        <translation>GeoAlign wird installiert</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/steps.py"/>
        <source>Installing PyTorch</source>
        <translation>PyTorch wird installiert</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Install…</source>
        <translation>Installieren…</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>It is made when it is not there.</source>
        <translation>Er wird angelegt, wenn es ihn nicht gibt.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>It may be busy with a large step. Wait, or stop it.</source>
        <translation>Vielleicht arbeitet er an einem großen Schritt. Warten Sie, oder halten Sie ihn an.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>It most likely ran out of memory.</source>
        <translation>Wahrscheinlich ging ihm der Arbeitsspeicher aus.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>It runs beside QGIS in its own folder and does not change the Python of QGIS. Download: {size}.</source>
        <translation>Er läuft neben QGIS in einem eigenen Ordner und ändert das Python von QGIS nicht. Download: {size}.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/landcover.py"/>
        <source>Land cover</source>
        <translation>Landbedeckung</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/landcover.py"/>
        <source>Land cover from words</source>
        <translation>Landbedeckung aus Worten</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/results.py"/>
        <source>Like This</source>
        <translation>Wie dieser</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/results.py"/>
        <source>Like This (Y)</source>
        <translation>Wie dieser (Y)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/search.py"/>
        <source>Like the examples</source>
        <translation>Wie die Beispiele</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/delegate.py"/>
        <source>Like this</source>
        <translation>Wie dieser</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Loading the model</source>
        <translation>Das Modell wird geladen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Log of the installation</source>
        <translation>Protokoll der Installation</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Look at the image with the contrast of its layer style. Otherwise the engine chooses the contrast.</source>
        <translation>Das Bild mit dem Kontrast seines Layerstils ansehen. Sonst wählt der Suchdienst den Kontrast.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Looking around</source>
        <translation>Überblick wird gewonnen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Looking at the examples</source>
        <translation>Die Beispiele werden angesehen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/steps.py"/>
        <source>Looking for Python</source>
        <translation>Python wird gesucht</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/indexraster.py"/>
        <source>Looks at an image once and stores what it saw in a folder beside it, named like the image with “.geoalign” at the end. Every later question reads only this index and takes seconds.

Run it over many images in a batch, for instance at night. It can be cancelled at any time and goes on where it was. Extent and mask limit it to a part of the image.</source>
        <translation>Sieht ein Bild einmal an und legt das Gesehene in einem Ordner daneben ab, der wie das Bild heißt, mit „.geoalign“ am Ende. Jede spätere Frage liest nur diesen Index und dauert Sekunden.

Lassen Sie es als Stapel über viele Bilder laufen, zum Beispiel nachts. Es lässt sich jederzeit abbrechen und macht dort weiter, wo es war. Ausdehnung und Maske beschränken es auf einen Teil des Bildes.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>Looks for an existing Python, the installed engine, and the command geoalign.</source>
        <translation>Sucht ein vorhandenes Python, den installierten Suchdienst und den Befehl geoalign.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Lower the Limit</source>
        <translation>Grenze senken</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Make room first.</source>
        <translation>Schaffen Sie zuerst Platz.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/install.py"/>
        <source>Making the environment</source>
        <translation>Die Umgebung wird angelegt</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/teacher.py"/>
        <source>Mark at least one place that is right.</source>
        <translation>Markieren Sie mindestens eine richtige Stelle.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>Mark examples on the map</source>
        <translation>Beispiele auf der Karte markieren</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>Mark matches to improve the search</source>
        <translation>Treffer markieren, um die Suche zu verbessern</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Mask layer</source>
        <translation>Maskenlayer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/style.py"/>
        <source>Match (0–1)</source>
        <translation>Treffer (0–1)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/histogram.py"/>
        <source>Match {low} to {high}: {count} pixels</source>
        <translation>Treffer {low} bis {high}: {count} Pixel</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/results.py"/>
        <source>Match {number}: {score}, {place}</source>
        <translation>Treffer {number}: {score}, {place}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/style.py"/>
        <source>Match {score}, {area} m²</source>
        <translation>Treffer {score}, {area} m²</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/results.py"/>
        <source>Matches</source>
        <translation>Treffer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/export.py"/>
        <source>Matches of a question, by GeoAlign</source>
        <translation>Treffer einer Frage, von GeoAlign</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Minimum area</source>
        <translation>Mindestfläche</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>Minimum match</source>
        <translation>Mindesttreffer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/style.py"/>
        <source>Minimum match (%)</source>
        <translation>Mindesttreffer (%)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>Minimum match as a number</source>
        <translation>Mindesttreffer als Zahl</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/histogram.py"/>
        <source>Minimum match {limit}, {share} of the image above it</source>
        <translation>Mindesttreffer {limit}, {share} des Bildes darüber</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Model</source>
        <translation>Modell</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/enginestatus.py"/>
        <source>Models: {names}</source>
        <translation>Modelle: {names}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>Most matches</source>
        <translation>Höchstzahl der Treffer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>NVIDIA GPU</source>
        <translation>NVIDIA-Grafikkarte</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/command.py"/>
        <source>Name a Python that has GeoAlign, a geoalign command, or the folder of an environment.</source>
        <translation>Nennen Sie ein Python mit GeoAlign, einen Befehl geoalign oder den Ordner einer Umgebung.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/landcover.py"/>
        <source>Name at least two different classes and at most 255, separated by semicolons.</source>
        <translation>Nennen Sie mindestens zwei verschiedene Klassen und höchstens 255, durch Semikolons getrennt.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/landcover.py"/>
        <source>Names of the classes, separated by semicolons</source>
        <translation>Namen der Klassen, durch Semikolons getrennt</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Needs {needed} of disk, {free} are free.</source>
        <translation>Braucht {needed} auf der Festplatte, {free} sind frei.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>Next match (N)</source>
        <translation>Nächster Treffer (N)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/install.py"/>
        <source>No Python 3.11 or newer was found on this computer.</source>
        <translation>Auf diesem Rechner wurde kein Python 3.11 oder neuer gefunden.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>No engine has been found yet.</source>
        <translation>Noch wurde kein Suchdienst gefunden.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/render.py"/>
        <source>No image came back for this area: check the connection, or zoom in</source>
        <translation>Für dieses Gebiet kam kein Bild: Prüfen Sie die Verbindung oder zoomen Sie hinein</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/source.py"/>
        <source>No image layer is chosen</source>
        <translation>Kein Bildlayer ist gewählt</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>No match above {limit}</source>
        <translation>Kein Treffer über {limit}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/area.py"/>
        <source>No polygon is selected in “{name}”: select the polygons to search in</source>
        <translation>In „{name}“ ist kein Polygon gewählt: Wählen Sie die Polygone, in denen gesucht wird</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/area.py"/>
        <source>No rectangle is drawn: drag one on the map</source>
        <translation>Kein Rechteck ist gezeichnet: Ziehen Sie eines auf der Karte</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>No version of {package} that fits this computer was found.</source>
        <translation>Von {package} wurde keine Version gefunden, die zu diesem Rechner passt.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/results.py"/>
        <source>Not This</source>
        <translation>Nicht dieser</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/results.py"/>
        <source>Not This (X)</source>
        <translation>Nicht dieser (X)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>Not like these</source>
        <translation>Nicht wie diese</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/delegate.py"/>
        <source>Not this</source>
        <translation>Nicht dieser</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/landcover.py"/>
        <source>Number of classes</source>
        <translation>Anzahl der Klassen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>Number of matches</source>
        <translation>Anzahl der Treffer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/indexraster.py"/>
        <source>Number of patches in the index</source>
        <translation>Anzahl der Bildstücke im Index</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Number of tiles</source>
        <translation>Anzahl der Kacheln</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>On Windows install the Microsoft Visual C++ Redistributable, then install again.</source>
        <translation>Installieren Sie unter Windows das Microsoft Visual C++ Redistributable und dann erneut.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/precision.py"/>
        <source>Only questions in words are calibrated: with examples the match is a rank, not a probability.</source>
        <translation>Nur Fragen in Worten sind kalibriert: Mit Beispielen ist der Treffer eine Rangfolge, keine Wahrscheinlichkeit.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>Only so many matches are kept, the best ones first.</source>
        <translation>Nur so viele Treffer bleiben, die besten zuerst.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Only this rectangle is searched. Empty means the whole image.</source>
        <translation>Nur dieses Rechteck wird durchsucht. Leer heißt: das ganze Bild.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Only what lies in these polygons is searched, in any coordinate reference system.</source>
        <translation>Nur was in diesen Polygonen liegt, wird durchsucht, in jedem Koordinatenbezugssystem.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Open a GeoTIFF, or add an XYZ or WMS layer, then choose it above.</source>
        <translation>Öffnen Sie ein GeoTIFF oder fügen Sie einen XYZ- oder WMS-Layer hinzu und wählen Sie ihn oben aus.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Otherwise a folder with other tiles is refused.</source>
        <translation>Sonst wird ein Ordner mit anderen Kacheln abgelehnt.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Overlap</source>
        <translation>Überlappung</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/indexraster.py"/>
        <source>Parts of the index built: {built}, already there: {kept}</source>
        <translation>Teile des Index gebaut: {built}, schon vorhanden: {kept}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Pixels or metres on the ground: 512px or 250m.</source>
        <translation>Pixel oder Meter am Boden: 512px oder 250m.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Places that look like these words match less. Separate them by commas.</source>
        <translation>Stellen, die wie diese Worte aussehen, treffen weniger. Trennen Sie sie durch Kommas.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Planning the tiles</source>
        <translation>Die Kacheln werden geplant</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>Polygons around what is meant, or points on it.</source>
        <translation>Polygone um das Gemeinte oder Punkte darauf.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>Polygons around what looks similar but is not meant, or points on it.</source>
        <translation>Polygone um das, was ähnlich aussieht, aber nicht gemeint ist, oder Punkte darauf.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/indexraster.py"/>
        <source>Prepare an image for searching (index)</source>
        <translation>Ein Bild zum Suchen vorbereiten (Index)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>Previous match (P)</source>
        <translation>Voriger Treffer (P)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Processor</source>
        <translation>Prozessor</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/pieces.py"/>
        <source>Progress</source>
        <translation>Fortschritt</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Progress of the installation</source>
        <translation>Fortschritt der Installation</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>PyTorch is installed but does not start on this computer.</source>
        <translation>PyTorch ist installiert, startet auf diesem Rechner aber nicht.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>Python, command or folder of an environment</source>
        <translation>Python, Befehl oder Ordner einer Umgebung</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/web.py"/>
        <source>QGIS cannot use the authentication “{name}”.</source>
        <translation>QGIS kann die Authentifizierung „{name}“ nicht verwenden.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/question.py"/>
        <source>Question</source>
        <translation>Frage</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/style.py"/>
        <source>Rank</source>
        <translation>Rang</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Reading the heatmap</source>
        <translation>Die Heatmap wird gelesen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Reading the image</source>
        <translation>Das Bild wird gelesen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/asking.py"/>
        <source>Reading {layer}</source>
        <translation>{layer} wird gelesen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/question.py"/>
        <source>Recent questions</source>
        <translation>Frühere Fragen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Rectangle</source>
        <translation>Rechteck</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Red, green and blue band</source>
        <translation>Roter, grüner und blauer Kanal</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>Repair Path…</source>
        <translation>Pfad reparieren…</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Replace tiles that are there</source>
        <translation>Vorhandene Kacheln ersetzen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Restart</source>
        <translation>Neu starten</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Runs beside QGIS in its own folder and does not change the Python of QGIS. Download: about {size}.</source>
        <translation>Läuft neben QGIS in einem eigenen Ordner und ändert das Python von QGIS nicht. Download: etwa {size}.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Runs beside QGIS in its own folder and does not change the Python of QGIS. Nothing is downloaded.</source>
        <translation>Läuft neben QGIS in einem eigenen Ordner und ändert das Python von QGIS nicht. Nichts wird heruntergeladen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/saving.py"/>
        <source>Save Matches As</source>
        <translation>Treffer speichern unter</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>Save matches as…</source>
        <translation>Treffer speichern unter…</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/saving.py"/>
        <source>Saved {path}</source>
        <translation>{path} gespeichert</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/enginestatus.py"/>
        <source>Says whether the search engine works, and what it has.</source>
        <translation>Sagt, ob der Suchdienst arbeitet und was er hat.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/search.py"/>
        <source>Scores from 0 to 1 as a GeoTIFF. Several questions give one band each, in their order.</source>
        <translation>Werte von 0 bis 1 als GeoTIFF. Mehrere Fragen ergeben je einen Kanal, in ihrer Reihenfolge.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Search Options</source>
        <translation>Suchoptionen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/process.py"/>
        <source>Search a smaller area, or close other programs.</source>
        <translation>Durchsuchen Sie ein kleineres Gebiet oder schließen Sie andere Programme.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/client.py"/>
        <source>Search a smaller area.</source>
        <translation>Durchsuchen Sie ein kleineres Gebiet.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/question.py"/>
        <source>Search the image (Return)</source>
        <translation>Das Bild durchsuchen (Eingabetaste)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/locator.py"/>
        <source>Search the map for “{question}”</source>
        <translation>Die Karte nach „{question}“ durchsuchen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/locator.py"/>
        <source>Search {layer} for “{question}”</source>
        <translation>{layer} nach „{question}“ durchsuchen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/controller.py"/>
        <source>Searched {tiles} in {seconds} s</source>
        <translation>{tiles} in {seconds} s durchsucht</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/teacher.py"/>
        <source>Select the features that show what you look for, then try again.</source>
        <translation>Wählen Sie die Objekte, die das Gesuchte zeigen, und versuchen Sie es erneut.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Selection</source>
        <translation>Auswahl</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Sending the image to the engine</source>
        <translation>Das Bild wird an den Suchdienst gesendet</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>Set Coordinate System…</source>
        <translation>Koordinatensystem setzen…</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>Set the proxy with name and password in the options of QGIS under Network.</source>
        <translation>Setzen Sie den Proxy mit Namen und Passwort in den QGIS-Optionen unter Netzwerk.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>Shape of the matches</source>
        <translation>Form der Treffer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Show Best 10</source>
        <translation>Die besten 10 zeigen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/indexraster.py"/>
        <source>Size of the index in bytes</source>
        <translation>Größe des Index in Byte</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Smaller matches are left out. In square metres on the ground.</source>
        <translation>Kleinere Treffer entfallen. In Quadratmetern am Boden.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Smallest match (m²)</source>
        <translation>Kleinster Treffer (m²)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>Start</source>
        <translation>Starten</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/client.py"/>
        <source>Start it again; a virus scanner can make the first start slow.</source>
        <translation>Starten Sie ihn erneut; ein Virenscanner kann den ersten Start verlangsamen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/process.py"/>
        <source>Start it again; if it stops again, copy the report and send it to us.</source>
        <translation>Starten Sie ihn erneut; hält er wieder an, kopieren Sie den Bericht und senden ihn uns.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/steps.py"/>
        <source>Starting the engine once</source>
        <translation>Der Suchdienst wird einmal gestartet</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Starting the search engine</source>
        <translation>Der Suchdienst startet</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/enginestatus.py"/>
        <source>Starts the search engine and says its version, its models and the devices it can compute on. When there is no engine, it says why and what to do.</source>
        <translation>Startet den Suchdienst und nennt seine Version, seine Modelle und die Geräte, auf denen er rechnen kann. Gibt es keinen, sagt es, warum und was zu tun ist.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>Stop</source>
        <translation>Anhalten</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/question.py"/>
        <source>Stop (Esc)</source>
        <translation>Anhalten (Esc)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/search.py"/>
        <source>Stopped</source>
        <translation>Angehalten</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/blocking.py"/>
        <source>Stopped.</source>
        <translation>Angehalten.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/runner.py"/>
        <source>Stopped. What has been read is kept, and is not read again.</source>
        <translation>Angehalten. Was gelesen ist, bleibt und wird nicht noch einmal gelesen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Stopping the engine</source>
        <translation>Der Suchdienst wird angehalten</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Stretch as shown</source>
        <translation>Kontrast wie gezeigt</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Table of the tiles</source>
        <translation>Tabelle der Kacheln</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>The Python found here cannot make environments.</source>
        <translation>Das hier gefundene Python kann keine Umgebungen anlegen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/command.py"/>
        <source>The address is missing.</source>
        <translation>Die Adresse fehlt.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/web.py"/>
        <source>The address {host} answered with status {status}.</source>
        <translation>Die Adresse {host} antwortete mit Status {status}.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/area.py"/>
        <source>The area crosses the 180° meridian: search each side by itself</source>
        <translation>Das Gebiet überschreitet den 180. Längengrad: Durchsuchen Sie jede Seite für sich</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/render.py"/>
        <source>The area does not touch this layer: choose another one</source>
        <translation>Das Gebiet berührt diesen Layer nicht: Wählen Sie ein anderes</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>The bands to write, in this order. Empty means all.</source>
        <translation>Die Kanäle, die geschrieben werden, in dieser Reihenfolge. Leer heißt: alle.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>The certificate of the download site was not accepted.</source>
        <translation>Das Zertifikat der Download-Seite wurde nicht angenommen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/controller.py"/>
        <source>The details are in the clipboard.</source>
        <translation>Die Einzelheiten sind in der Zwischenablage.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/process.py"/>
        <source>The details say why; check the engine in the engine settings.</source>
        <translation>Die Einzelheiten sagen, warum; prüfen Sie den Suchdienst in seinen Einstellungen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>The disk is full.</source>
        <translation>Die Festplatte ist voll.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>The download site cannot be reached.</source>
        <translation>Die Download-Seite ist nicht erreichbar.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/render.py"/>
        <source>The drawn image cannot be read back: is the disk full?</source>
        <translation>Das gezeichnete Bild lässt sich nicht lesen: Ist die Festplatte voll?</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/render.py"/>
        <source>The drawn image cannot be saved ({reason}): check the room and the rights of its folder</source>
        <translation>Das gezeichnete Bild kann nicht gespeichert werden ({reason}): Prüfen Sie Platz und Rechte seines Ordners</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/client.py"/>
        <source>The engine (version {version}) and this plugin do not understand each other.</source>
        <translation>Der Suchdienst (Version {version}) und diese Erweiterung verstehen sich nicht.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/web.py"/>
        <source>The engine at {host} cannot be reached.</source>
        <translation>Der Suchdienst auf {host} ist nicht erreichbar.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/web.py"/>
        <source>The engine at {host} does not accept the sign-in.</source>
        <translation>Der Suchdienst auf {host} nimmt die Anmeldung nicht an.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/process.py"/>
        <source>The engine could not be started: {reason}</source>
        <translation>Der Suchdienst konnte nicht gestartet werden: {reason}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/client.py"/>
        <source>The engine did not answer within {seconds} seconds.</source>
        <translation>Der Suchdienst antwortete nicht innerhalb von {seconds} Sekunden.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>The engine does not answer</source>
        <translation>Der Suchdienst antwortet nicht</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>The engine does not answer at the moment.</source>
        <translation>Der Suchdienst antwortet gerade nicht.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/process.py"/>
        <source>The engine ended by itself with code {code}.</source>
        <translation>Der Suchdienst endete von selbst mit Code {code}.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/install.py"/>
        <source>The engine is installed but does not speak this plugin's protocol.</source>
        <translation>Der Suchdienst ist installiert, spricht aber nicht das Protokoll dieser Erweiterung.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>The engine is installed.</source>
        <translation>Der Suchdienst ist installiert.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>The engine is ready (version {version}).</source>
        <translation>Der Suchdienst ist bereit (Version {version}).</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>The engine is ready.</source>
        <translation>Der Suchdienst ist bereit.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>The engine is starting.</source>
        <translation>Der Suchdienst startet.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>The engine is working.</source>
        <translation>Der Suchdienst arbeitet.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/client.py"/>
        <source>The engine sent an answer that is not complete.</source>
        <translation>Der Suchdienst schickte eine unvollständige Antwort.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/client.py"/>
        <source>The engine sent an answer that is too long.</source>
        <translation>Der Suchdienst schickte eine zu lange Antwort.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>The engine stopped</source>
        <translation>Der Suchdienst hielt an</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/process.py"/>
        <source>The engine stopped unexpectedly.</source>
        <translation>Der Suchdienst hielt unerwartet an.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>The engine stopped.</source>
        <translation>Der Suchdienst hielt an.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/process.py"/>
        <source>The engine stopped. It most likely ran out of memory.</source>
        <translation>Der Suchdienst hielt an. Wahrscheinlich ging ihm der Arbeitsspeicher aus.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/enginestatus.py"/>
        <source>The engine works</source>
        <translation>Der Suchdienst arbeitet</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/outputs.py"/>
        <source>The engine's answer cannot be read: {path}</source>
        <translation>Die Antwort des Suchdienstes ist nicht lesbar: {path}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>The environment variable {name} names {path}.</source>
        <translation>Die Umgebungsvariable {name} nennt {path}.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/teacher.py"/>
        <source>The example does not lie on this layer: choose another one.</source>
        <translation>Das Beispiel liegt nicht auf diesem Layer: Wählen Sie ein anderes.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>The folder of the engine cannot be written.</source>
        <translation>Der Ordner des Suchdienstes ist nicht beschreibbar.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>The heatmap has to be a file. Export the layer first.</source>
        <translation>Die Heatmap muss eine Datei sein. Exportieren Sie zuerst den Layer.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/source.py"/>
        <source>The image of this layer was moved or cannot be opened</source>
        <translation>Das Bild dieses Layers wurde verschoben oder lässt sich nicht öffnen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/source.py"/>
        <source>The image of this layer was moved or renamed</source>
        <translation>Das Bild dieses Layers wurde verschoben oder umbenannt</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/install.py"/>
        <source>The installation needs {needed} MB, {free} MB are free.</source>
        <translation>Die Installation braucht {needed} MB, {free} MB sind frei.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/render.py"/>
        <source>The layer could not be drawn</source>
        <translation>Der Layer konnte nicht gezeichnet werden</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/render.py"/>
        <source>The layer could not be drawn ({reason})</source>
        <translation>Der Layer konnte nicht gezeichnet werden ({reason})</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/search.py"/>
        <source>The layer is no longer in the project.</source>
        <translation>Der Layer ist nicht mehr im Projekt.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>The layer of examples has no features.</source>
        <translation>Der Layer mit den Beispielen hat keine Objekte.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/area.py"/>
        <source>The layer “{name}” has no polygons: choose another one</source>
        <translation>Der Layer „{name}“ hat keine Polygone: Wählen Sie einen anderen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/area.py"/>
        <source>The map and this layer have no place in common: choose the whole layer</source>
        <translation>Karte und Layer haben keinen Ort gemeinsam: Wählen Sie den ganzen Layer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/base.py"/>
        <source>The mask layer has no polygons. Draw some, or leave the mask empty.</source>
        <translation>Der Maskenlayer hat keine Polygone. Zeichnen Sie welche oder lassen Sie die Maske leer.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/precision.py"/>
        <source>The match is a rank, not a probability</source>
        <translation>Der Wert ist ein Rang, keine Wahrscheinlichkeit</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/export.py"/>
        <source>The matches are no longer in the project: ask again</source>
        <translation>Die Treffer sind nicht mehr im Projekt: Fragen Sie erneut</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/search.py"/>
        <source>The matches with question, score, rank, area in square metres, ground resolution and model.</source>
        <translation>Die Treffer mit Frage, Wert, Rang, Fläche in Quadratmetern, Bodenauflösung und Modell.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>The matches with score, rank and area in square metres.</source>
        <translation>Die Treffer mit Wert, Rang und Fläche in Quadratmetern.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>The name of an installed model, or its folder. Empty means the model of the settings.</source>
        <translation>Der Name eines installierten Modells oder sein Ordner. Leer heißt: das Modell der Einstellungen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>The proxy did not let the download through.</source>
        <translation>Der Proxy ließ den Download nicht durch.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/area.py"/>
        <source>The rectangle does not touch this layer: draw another one</source>
        <translation>Das Rechteck berührt diesen Layer nicht: Zeichnen Sie ein anderes</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/controller.py"/>
        <source>The report is in the clipboard.</source>
        <translation>Der Bericht ist in der Zwischenablage.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>The report is on the clipboard.</source>
        <translation>Der Bericht ist in der Zwischenablage.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/client.py"/>
        <source>The request cannot be sent: {reason}</source>
        <translation>Die Anfrage kann nicht gesendet werden: {reason}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>The search engine is not installed</source>
        <translation>Der Suchdienst ist nicht installiert</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/command.py"/>
        <source>The search engine is not installed.</source>
        <translation>Der Suchdienst ist nicht installiert.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/area.py"/>
        <source>The selected polygons do not touch this layer: select others</source>
        <translation>Die gewählten Polygone berühren diesen Layer nicht: Wählen Sie andere</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/render.py"/>
        <source>The size of this layer on the ground is unknown: check its coordinate system</source>
        <translation>Die Größe dieses Layers am Boden ist unbekannt: Prüfen Sie sein Koordinatensystem</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/trouble.py"/>
        <source>The step “{step}” failed.</source>
        <translation>Der Schritt „{step}“ schlug fehl.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/area.py"/>
        <source>The visible map does not show this layer: zoom to it</source>
        <translation>Die sichtbare Karte zeigt diesen Layer nicht: Zoomen Sie dorthin</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/areas.py"/>
        <source>There are too many shapes for one search. Take fewer or simpler ones.</source>
        <translation>Für eine Suche sind das zu viele Formen. Nehmen Sie weniger oder einfachere.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/command.py"/>
        <source>There is no Python in the folder {path}.</source>
        <translation>Im Ordner {path} ist kein Python.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/remote.py"/>
        <source>There is no engine of GeoAlign at this address.</source>
        <translation>Unter dieser Adresse ist kein Suchdienst von GeoAlign.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/area.py"/>
        <source>There is no map to take the area from</source>
        <translation>Es gibt keine Karte, aus der das Gebiet genommen werden könnte</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/export.py"/>
        <source>There is no match to save: lower the minimum match</source>
        <translation>Es gibt keinen Treffer zu speichern: Senken Sie den Mindesttreffer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/command.py"/>
        <source>There is no program {path}.</source>
        <translation>Es gibt kein Programm {path}.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/base.py"/>
        <source>There is no search engine yet. Open Raster ▸ GeoAlign ▸ Ask the Map and choose Install…, or set GEOALIGN_PYTHON to a Python that has the package geoalign.</source>
        <translation>Es gibt noch keinen Suchdienst. Öffnen Sie Raster ▸ GeoAlign ▸ Die Karte fragen und wählen Sie Installieren…, oder setzen Sie GEOALIGN_PYTHON auf ein Python mit dem Paket geoalign.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/base.py"/>
        <source>There is nothing to search: the extent and the mask share no ground.</source>
        <translation>Es gibt nichts zu durchsuchen: Ausdehnung und Maske haben keine gemeinsame Fläche.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/render.py"/>
        <source>This area needs {count} tiles, {limit} at most: zoom in or choose a coarser ground resolution</source>
        <translation>Dieses Gebiet braucht {count} Kacheln, höchstens {limit} gehen: Zoomen Sie hinein oder wählen Sie eine gröbere Bodenauflösung</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/tools.py"/>
        <source>This click missed the image: click on it</source>
        <translation>Dieser Klick traf das Bild nicht: Klicken Sie darauf</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>This engine does not fit this version of the plugin.</source>
        <translation>Dieser Suchdienst passt nicht zu dieser Version der Erweiterung.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/source.py"/>
        <source>This image has no place on the map: georeference it first</source>
        <translation>Dieses Bild hat keinen Ort auf der Karte: Georeferenzieren Sie es zuerst</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>This image has to be read once</source>
        <translation>Dieses Bild muss einmal gelesen werden</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/render.py"/>
        <source>This kind of layer cannot be drawn: save it as a GeoTIFF first</source>
        <translation>Diese Art von Layer lässt sich nicht zeichnen: Speichern Sie ihn zuerst als GeoTIFF</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>This layer cannot be searched</source>
        <translation>Dieser Layer lässt sich nicht durchsuchen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>This layer comes from a server</source>
        <translation>Dieser Layer kommt von einem Server</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/source.py"/>
        <source>This layer has no coordinate system</source>
        <translation>Dieser Layer hat kein Koordinatensystem</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/source.py"/>
        <source>This layer is not an image</source>
        <translation>Dieser Layer ist kein Bild</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/precision.py"/>
        <source>This model is not calibrated: the match is a rank, not a probability.</source>
        <translation>Dieses Modell ist nicht kalibriert: Der Treffer ist eine Rangfolge, keine Wahrscheinlichkeit.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Three bands in the order red, green, blue. Empty means the bands of the layer's style.</source>
        <translation>Drei Kanäle in der Reihenfolge Rot, Grün, Blau. Leer heißt: die Kanäle des Layerstils.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Tile size</source>
        <translation>Kachelgröße</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Tiles are cut on this computer only: choose another engine than an address.</source>
        <translation>Kacheln werden nur auf diesem Rechner geschnitten: Wählen Sie einen anderen Suchdienst als eine Adresse.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>Tiles are resampled to so many metres per pixel. Empty keeps the pixels of the image.</source>
        <translation>Kacheln werden auf so viele Meter pro Pixel umgerechnet. Leer behält die Pixel des Bildes.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Tiles that are ready are searched first. Stop keeps what has been read.</source>
        <translation>Fertige Kacheln werden zuerst durchsucht. Anhalten behält, was gelesen ist.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>Try Again</source>
        <translation>Erneut versuchen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Try other words, or a larger area.</source>
        <translation>Versuchen Sie andere englische Worte oder ein größeres Gebiet.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>Turns a heatmap made by GeoAlign into boxes or outlines at the threshold you choose, with score and area in square metres. Nothing is searched again, so this takes a moment only. Of a heatmap with several bands the first is taken.</source>
        <translation>Macht aus einer Heatmap von GeoAlign Rahmen oder Umrisse an der Schwelle, die Sie wählen, mit Wert und Fläche in Quadratmetern. Nichts wird neu gesucht, daher dauert es nur einen Moment. Von einer Heatmap mit mehreren Kanälen wird der erste genommen.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>Turns a heatmap of scores into boxes or outlines.</source>
        <translation>Macht aus einer Heatmap Rahmen oder Umrisse.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/asklayer.py"/>
        <source>Type what to look for.</source>
        <translation>Geben Sie ein, was gesucht wird.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/plugin.py"/>
        <source>Type what you are looking for and see where it is</source>
        <translation>Schreiben Sie, was Sie suchen, und sehen Sie, wo es ist</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>Undo the last mark</source>
        <translation>Die letzte Markierung zurücknehmen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/install.py"/>
        <source>Update the plugin.</source>
        <translation>Aktualisieren Sie die Erweiterung.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/steps.py"/>
        <source>Updating the installer</source>
        <translation>Das Installationsprogramm wird aktualisiert</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>Use Existing…</source>
        <translation>Vorhandenen benutzen…</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Use Selected Features</source>
        <translation>Gewählte Objekte benutzen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>Use existing Python or command</source>
        <translation>Vorhandenes Python oder vorhandenen Befehl benutzen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/enginestatus.py"/>
        <source>Version of the engine</source>
        <translation>Version des Suchdienstes</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Visible Map</source>
        <translation>Sichtbare Karte</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>Wait for the installation, or cancel it.</source>
        <translation>Warten Sie auf die Installation oder brechen Sie sie ab.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/install.py"/>
        <source>Wait until it is done.</source>
        <translation>Warten Sie, bis es fertig ist.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/question.py"/>
        <source>What are you looking for?</source>
        <translation>Was suchen Sie? (auf Englisch)</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/enginestatus.py"/>
        <source>What is wrong, or empty</source>
        <translation>Was nicht stimmt, oder leer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>What looks similar but is not meant, in English, separated by semicolons: “shadow; dark water”.</source>
        <translation>Was ähnlich aussieht, aber nicht gemeint ist, auf Englisch, durch Semikolons getrennt: „shadow; dark water“.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>What the examples show, in English. May stay empty.</source>
        <translation>Was die Beispiele zeigen, auf Englisch. Darf leer bleiben.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/asklayer.py"/>
        <source>What to look for, in English. Several questions are separated by semicolons: “trees; water”.</source>
        <translation>Was gesucht wird, auf Englisch. Mehrere Fragen werden durch Semikolons getrennt: „trees; water“.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>What to show on the map</source>
        <translation>Was die Karte zeigt</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>Wheel folder</source>
        <translation>Ordner mit Wheels</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>Where Is the Image?</source>
        <translation>Wo ist das Bild?</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>Where to compute: auto takes the graphics card when the engine has one.</source>
        <translation>Wo gerechnet wird: auto nimmt die Grafikkarte, wenn der Suchdienst eine hat.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Where to search: the visible map, the whole layer, selected polygons, or a rectangle you draw</source>
        <translation>Wo gesucht wird: in der sichtbaren Karte, im ganzen Layer, in gewählten Polygonen oder in einem gezeichneten Rechteck</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/dock.py"/>
        <source>Whole Layer</source>
        <translation>Ganzer Layer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>Words to avoid</source>
        <translation>Zu meidende Worte</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/command.py"/>
        <source>Write it like http://gpu-room:8765.</source>
        <translation>Schreiben Sie sie wie http://gpu-room:8765.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/stages.py"/>
        <source>Writing the result</source>
        <translation>Das Ergebnis wird geschrieben</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>Written into the column “query” of the matches. May stay empty.</source>
        <translation>Kommt in die Spalte „query“ der Treffer. Darf leer bleiben.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>You can already type a question</source>
        <translation>Sie können schon eine Frage eingeben</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/results.py"/>
        <source>Zoom to Match</source>
        <translation>Zum Treffer zoomen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>about {time} left</source>
        <translation>noch etwa {time}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/parameters.py"/>
        <source>boxes: the rectangle around each match. polygons: its outline, which follows it to about half a patch.</source>
        <translation>boxes: das Rechteck um jeden Treffer. polygons: sein Umriss, der ihm auf etwa ein halbes Bildstück folgt.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>boxes: the rectangle around each match. polygons: its outline.</source>
        <translation>boxes: das Rechteck um jeden Treffer. polygons: sein Umriss.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/enginestatus.py"/>
        <source>engine,status,version,installed,gpu,cuda,device,model,diagnose,help</source>
        <translation>suchdienst,zustand,version,installiert,gpu,cuda,gerät,modell,diagnose,hilfe</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>flooded fields</source>
        <translation>flooded fields</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/heatmaptoboxes.py"/>
        <source>heatmap,threshold,boxes,polygons,outlines,vectorize,vectorise,polygonize,matches,score</source>
        <translation>heatmap,schwelle,rahmen,polygone,umrisse,vektorisieren,treffer,wert</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/indexraster.py"/>
        <source>index,prepare,embed,embeddings,features,search,cache,batch,image,aerial,satellite</source>
        <translation>index,vorbereiten,merkmale,suchen,stapel,bild,luftbild,satellitenbild</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/render.py"/>
        <source>is the disk full?</source>
        <translation>Ist die Festplatte voll?</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/precision.py"/>
        <source>labelled images</source>
        <translation>beschrifteten Bildern</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/landcover.py"/>
        <source>land cover,land use,classify,classification,classes,segmentation,words,water,forest,buildings</source>
        <translation>landbedeckung,landnutzung,klassifizieren,klassifikation,klassen,segmentierung,worte,wasser,wald,gebäude</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/saved.py"/>
        <source>like example {n}</source>
        <translation>wie Beispiel {n}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/saved.py"/>
        <source>like the example</source>
        <translation>wie das Beispiel</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/install_box.py"/>
        <source>only without Internet access</source>
        <translation>nur ohne Internetzugang</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>parking lots with many cars</source>
        <translation>parking lots with many cars</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/engine_dialog.py"/>
        <source>python3, geoalign, or a folder</source>
        <translation>python3, geoalign oder ein Ordner</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/asklayer.py"/>
        <source>search,find,text,question,words,detect,objects,heatmap,boxes,aerial,satellite,image,imagery,buildings,cars,trees,water,clip,ai,machine learning</source>
        <translation>suchen,finden,text,frage,worte,erkennen,objekte,heatmap,rahmen,luftbild,satellitenbild,gebäude,autos,bäume,wasser,ki,maschinelles lernen</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/findsimilar.py"/>
        <source>search,similar,example,like this,sample,match,lookalike,objects,aerial,satellite,image,few shot</source>
        <translation>suchen,ähnlich,beispiel,wie dieses,muster,treffer,objekte,luftbild,satellitenbild</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/options.py"/>
        <source>shadow, water</source>
        <translation>shadow, water</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>solar panels on roofs</source>
        <translation>solar panels on roofs</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>tif keeps the values; png and jpg are 8-bit pictures with a world file.</source>
        <translation>tif behält die Werte; png und jpg sind 8-Bit-Bilder mit World-Datei.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>tiles,tile,cut,split,chips,patches,grid,training data,dataset,retile</source>
        <translation>kacheln,kachel,schneiden,teilen,bildausschnitte,raster,trainingsdaten,datensatz</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/export.py"/>
        <source>unknown reason</source>
        <translation>unbekannter Grund</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/answers.py"/>
        <source>{area} m² · </source>
        <translation>{area} m² · </translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>{count} h</source>
        <translation>{count} h</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>{count} matches</source>
        <translation>{count} Treffer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>{count} matches, best {shown} listed</source>
        <translation>{count} Treffer, die besten {shown} in der Liste</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>{count} min</source>
        <translation>{count} min</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>{count} s</source>
        <translation>{count} s</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>{count} tiles</source>
        <translation>{count} Kacheln</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/drawing.py"/>
        <source>{failed} of {tiles} tiles came back empty; nothing is found there.</source>
        <translation>{failed} von {tiles} Kacheln kamen leer zurück; dort wird nichts gefunden.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/tileraster.py"/>
        <source>{label}: write “{text}” like {examples}.</source>
        <translation>{label}: Schreiben Sie „{text}“ wie {examples}.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/style.py"/>
        <source>{limit} weaker match</source>
        <translation>{limit} schwächerer Treffer</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/words.py"/>
        <source>{number}%</source>
        <translation>{number} %</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/search.py"/>
        <source>{n} map tiles did not arrive; they stay empty.</source>
        <translation>{n} Kartenkacheln kamen nicht an; sie bleiben leer.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/base.py"/>
        <source>{output}: GeoAlign writes GeoTIFF. Choose a name that ends in .tif.</source>
        <translation>{output}: GeoAlign schreibt GeoTIFF. Wählen Sie einen Namen, der auf .tif endet.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/remote.py"/>
        <source>{path} cannot be read: {reason}</source>
        <translation>{path} kann nicht gelesen werden: {reason}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/command.py"/>
        <source>{path} cannot be run.</source>
        <translation>{path} kann nicht ausgeführt werden.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/remote.py"/>
        <source>{path} cannot be written.</source>
        <translation>{path} kann nicht geschrieben werden.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/outputs.py"/>
        <source>{path} cannot be written: {reason}</source>
        <translation>{path} kann nicht geschrieben werden: {reason}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/search.py"/>
        <source>{question}: {count} matches, best score {best:.2f}</source>
        <translation>{question}: {count} Treffer, bester Wert {best:.2f}</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>{size} GB</source>
        <translation>{size} GB</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>{size} MB</source>
        <translation>{size} MB</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>{size} kB</source>
        <translation>{size} kB</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/cards.py"/>
        <source>{tiles} will be fetched and drawn into a picture of about {size}, then searched.</source>
        <translation>{tiles} werden geholt, zu einem Bild von etwa {size} gezeichnet und dann durchsucht.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/states.py"/>
        <source>{tiles}, about {time}, {size} on disk. Afterwards every question takes a second.</source>
        <translation>{tiles}, etwa {time}, {size} auf der Festplatte. Danach dauert jede Frage eine Sekunde.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/gui/result_block.py"/>
        <source>{yes} like this · {no} not this</source>
        <translation>{yes} wie dieser · {no} nicht dieser</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/processing/areas.py"/>
        <source>“{layer}” lies where the coordinate system of the image does not reach.</source>
        <translation>„{layer}“ liegt, wohin das Koordinatensystem des Bildes nicht reicht.</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/export.py"/>
        <source>“{name}” cannot be written ({reason}): choose another folder, or close the file where it is open</source>
        <translation>„{name}“ kann nicht geschrieben werden ({reason}): Wählen Sie einen anderen Ordner oder schließen Sie die Datei, wo sie offen ist</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/layers/export.py"/>
        <source>“{name}” has an unknown ending: use .gpkg, .shp or .geojson</source>
        <translation>„{name}“ hat eine unbekannte Endung: Nehmen Sie .gpkg, .shp oder .geojson</translation>
    </message>
    <message>
        <location filename="../../qgis_plugin/engine/command.py"/>
        <source>“{text}” is no address of an engine.</source>
        <translation>„{text}“ ist keine Adresse eines Suchdienstes.</translation>
    </message>
</context>
</TS>
