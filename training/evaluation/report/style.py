"""How the page looks, by day and by night."""

STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8881; --blue: #2f7fd0; --green: #1f9d61; --red: #d2483f;
  --amber: #b97a00; --violet: #8a5cd0; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --blue: #5aa5f0; --green: #3fc486; --red: #ff7a70; --amber: #f0b545;
  --violet: #b792f5; --page: #16181c; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem;
  background: var(--page); }
h1 { font-size: 1.5rem; margin-bottom: .3rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .3rem; padding-top: 1rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; } h4 { font-size: .95rem; margin: 1rem 0 .3rem; }
h1, h2, h3, h4, p, li, figcaption, span, td:first-child { overflow-wrap: anywhere; }
td, th { overflow-wrap: break-word; }
.wrap { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .9rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
td:first-child, th:first-child { text-align: left; min-width: 8em; } .left { text-align: left; }
.no, small { opacity: .75; } code { background: var(--soft); padding: 0 .25em; border-radius: 4px; }
.measured td { background: color-mix(in srgb, var(--blue) 12%, transparent); }
.notes { font-size: .87rem; opacity: .85; padding-left: 1.4rem; }
.beside th { min-width: 4.4em; vertical-align: bottom; } .beside td, .beside th { padding-right: .7rem; }
.beside td:first-child { min-width: 13em; }
.facts { font-size: .87rem; opacity: .8; margin: .2rem 0 1rem; }
.span { position: relative; display: block; width: 170px; height: 1.15em; background: var(--soft); }
.span i { position: absolute; top: .45em; height: .28em; background: var(--blue); opacity: .55; }
.span b { position: absolute; top: .1em; width: 3px; height: .95em; background: var(--blue); }
.bars { width: 100%; max-width: 760px; } .bars td:first-child { width: 13em; } .bars .track { min-width: 12em; }
.bars .track span { position: relative; display: block; height: 1.05em; margin-top: .2em; background: var(--soft); }
.bars .track i { position: absolute; left: 0; height: 100%; background: var(--blue); }
.bars .track b { position: absolute; top: 42%; height: 16%; background: currentColor; opacity: .75; }
.side { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
.side > svg { flex: 1 1 340px; } .plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr));
  gap: 1.2rem; }
svg { display: block; width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
.chart { max-width: 520px; } .rule { stroke: var(--line); } .ideal { stroke: currentColor; stroke-dasharray: 5 4;
  opacity: .6; }
.line { fill: none; stroke-width: 2; } .c0 { stroke: var(--blue); } .c1 { stroke: var(--amber); }
.c2 { stroke: var(--green); } .c3 { stroke: var(--violet); } .f0 { fill: var(--blue); fill-opacity: .55; }
.matrix .hit { fill: var(--green); } .matrix .slip { fill: var(--red); }
.matrix rect { stroke: var(--line); } .matrix.plain rect { stroke-width: .3; }
.matrix text.on { fill: #0d0f12; font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .3rem 0; font-size: .87rem; }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px; }
.k0 { background: var(--blue); } .k1 { background: var(--amber); } .k2 { background: var(--green); }
.k3 { background: var(--violet); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(245px, 1fr)); gap: 1rem; }
.card, figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; padding: .7rem; }
.card img { max-width: 100%; display: block; border-radius: 4px; } .card p { margin: .5rem 0 .2rem; font-size: .87rem; }
.query span { font-weight: 600; } .answers { margin: 0; padding-left: 1.3rem; font-size: .87rem; }
.answers li { margin: .25rem 0; padding-left: .4rem; border-left: 3px solid var(--line); }
.answers li.right { border-color: var(--green); } .answers li.wrong { border-color: var(--red); }
.answers small { margin-left: .5em; }
.answers:has(img) { display: grid; grid-template-columns: repeat(auto-fill, minmax(70px, 1fr)); gap: .4rem;
  list-style: none; padding: 0; }
.answers:has(img) li { border: 0; border-bottom: 4px solid var(--line); padding: 0 0 .2rem; }
.answers:has(img) small { margin: 0; }
figcaption { font-weight: 600; margin-bottom: .3rem; } figure p { margin: .4rem 0 0; font-size: .87rem; }
.scenes { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1.2rem; }
.wide { grid-column: 1 / -1; } .wide img { width: 100%; display: block; }
.others { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: .8rem; }
.others figure { border: 0; padding: 0; }
.scene { position: relative; } .scene img { display: block; width: 100%; }
.scene .heat, .scene svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.scene:hover .heat { opacity: 0; }
.scene polygon, .scene circle { fill: none; stroke-width: 2px; vector-effect: non-scaling-stroke; }
.scene polygon { pointer-events: all; }
.scene polygon.truth, .scene circle.truth { stroke: #00e5ff; stroke-dasharray: 6 4; }
.scene polygon.missed, .scene circle.missed { stroke: #ffb300; stroke-dasharray: 6 4; }
.scene polygon.hit, .scene circle.hit { stroke: #4dff9a; }
.scene polygon.false, .scene circle.false { stroke: #ff5a4d; }
.scene text { paint-order: stroke; stroke: #000d; stroke-linejoin: round; font-weight: 600; }
.scene text.missed { fill: #ffd166; } .scene text.false { fill: #ffb3a8; }
i.truth { background: #00c4dd; } i.missed { background: #ffb300; }
i.hit { background: #29c974; } i.false { background: #ff5a4d; }
"""
