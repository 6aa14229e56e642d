"""How the page looks and what it does: one style sheet for light, dark and paper, and a script that sorts and filters.

Text has a contrast of 4.5 to 1 at least, lines and marks 3 to 1; tests/lnln/report/test_look.py computes both. Without
the script everything is shown.
"""

# Okabe and Ito's colours, as in lnln/report/charts.py; the lighter of them on dark.
STYLE = """
:root{color-scheme:light dark;--paper:#fff;--raised:#f6f8fa;--ink:#1b1f24;--muted:#57606a;--line:#d8dee4;
--main:#0072b2;--best:#d55e00;--configured:#009e73;--failed:#b0457f;--pruned:#8a6d00;--other:#6a3d9a}
@media (prefers-color-scheme:dark){:root{--paper:#0f1419;--raised:#171d24;--ink:#e6edf3;--muted:#9aa4af;--line:#2c343d;
--main:#56b4e9;--best:#e69f00;--configured:#2fc79b;--failed:#e08bb9;--pruned:#c9b458;
--other:#b39ddb}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:74rem;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem}
h2{font-size:1.2rem;margin:2.6rem 0 .4rem;padding-top:.9rem;border-top:1px solid var(--line)}
p,ul{max-width:52rem}
ul{padding-left:1.2rem}
.facts,.note,figcaption,caption{color:var(--muted);font-size:.875rem}
.verdict{background:var(--raised);border-left:4px solid var(--best);padding:.9rem 1.1rem;border-radius:0 .4rem .4rem 0;
margin:1.2rem 0}
.verdict p{margin:.35rem 0}
.verdict p:first-child{font-size:1.1rem}
a{color:var(--main)}
code,pre{font:.875em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--raised);
border-radius:.25rem}
code{padding:.1em .3em}
pre{padding:.8rem 1rem;white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid var(--line)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:1.2rem;margin:1rem 0}
figure{margin:0;min-width:0}
svg{display:block;width:100%;height:auto;max-width:46rem}
.charts svg{max-width:30rem}
.charts.large{grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr))}
.charts.large svg{max-width:42rem}
.wide{overflow-x:auto}
.wide svg{min-width:36rem}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;color:var(--muted);font-size:.875rem}
.legend span{display:inline-flex;align-items:center;gap:.3rem}
.legend svg{width:20px;flex:none}
.legend svg.key{width:30px}
table{border-collapse:separate;border-spacing:0;font-size:.875rem;font-variant-numeric:tabular-nums;margin:.4rem 0}
caption{text-align:left;padding:.3rem 0}
th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:top}
th:first-child,td:first-child,td.words,td.long{text-align:left}
th:first-child,td:first-child{padding-left:.3rem}
td.long{white-space:normal;min-width:16rem}
thead th{border-bottom:2px solid var(--line);padding:0}
thead th:first-child{padding-left:0}
th button{all:unset;cursor:pointer;font-weight:600;padding:.3rem .7rem}
th:first-child button{padding-left:.3rem}
th button::after{content:"\\00a0\\2195";content:"\\00a0\\2195"/"";color:var(--muted)}
th[aria-sort=ascending] button::after{content:"\\00a0\\2191";content:"\\00a0\\2191"/"";color:var(--ink)}
th[aria-sort=descending] button::after{content:"\\00a0\\2193";content:"\\00a0\\2193"/"";color:var(--ink)}
tbody th{font-weight:600}
tbody th,table:has(tbody th) thead th:first-child{position:sticky;left:0;background:var(--paper)}
small{color:var(--muted);font-size:.8125rem;font-weight:400}
small.interval{display:block}
del{color:var(--muted);background:var(--raised);border-radius:.2rem;padding:0 .15em}
del::before{content:"["}
del::after{content:"]"}
summary{cursor:pointer;padding:.3rem 0}
.choose{display:flex;flex-wrap:wrap;align-items:center;gap:.3rem 1rem;margin:.8rem 0 .2rem;font-size:.875rem}
.choose label{display:inline-flex;flex-wrap:wrap;align-items:center;gap:.2rem .5rem}
.choose output{color:var(--muted)}
input,select{font:inherit;color:var(--ink);background:var(--paper);border:1px solid var(--muted);border-radius:.3rem;
padding:.25rem .5rem;max-width:100%;min-height:1.9rem}
:focus-visible{outline:2px solid var(--main);outline-offset:1px}
th button:focus-visible,.wide:focus-visible{outline-offset:-2px}
@media (max-width:40rem){body{padding:1rem .8rem 3rem}th,td{padding:.3rem .5rem}th button{padding:.3rem .5rem}
tbody th{max-width:9rem;white-space:normal}td.long{min-width:11rem}caption{max-width:calc(100vw - 1.6rem)}
.charts.large svg text{font-size:14px}}
tr.lit td,tr.lit th{background:var(--raised);font-weight:600}
svg text{fill:var(--muted);font:11px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
svg text.label{fill:var(--ink);font-size:12px}
.end{text-anchor:end}
.halo{paint-order:stroke;stroke:var(--paper);stroke-width:3px}
.middle{text-anchor:middle}
.grid,.axis,.tickmark,.frame{fill:none;stroke:var(--line)}
.axis,.tickmark{stroke:var(--muted)}
.complete{fill:var(--main);fill-opacity:.6;stroke:var(--paper);stroke-width:.8}
.best{fill:var(--best);stroke:var(--paper)}
.configured{fill:var(--configured);stroke:var(--paper)}
.pruned{fill:none;stroke:var(--pruned);stroke-width:1.4}
.failed{fill:none;stroke:var(--failed);stroke-width:1.8}
.thin{fill:none;stroke:var(--main);stroke-opacity:.35}
.cut{fill:none;stroke:var(--pruned);stroke-opacity:.7;stroke-dasharray:3 3}
.main{fill:none;stroke:var(--main);stroke-width:2}
.bestline{fill:none;stroke:var(--best);stroke-width:2.5}
.configuredline{fill:none;stroke:var(--configured);stroke-width:2;stroke-dasharray:6 4}
.band{fill:var(--main);fill-opacity:.16}
.zero{fill:var(--muted);fill-opacity:.12}
.bar{fill:var(--main);fill-opacity:.75}
.whisker{fill:none;stroke:var(--ink);stroke-width:1.6}
.chance{fill:none;stroke:var(--best);stroke-width:2;stroke-dasharray:3 2}
.level{fill:var(--main);shape-rendering:crispEdges}
.l0{fill-opacity:.6}.l1{fill-opacity:.48}.l2{fill-opacity:.37}.l3{fill-opacity:.27}.l4{fill-opacity:.18}
.l5{fill-opacity:.1}.l6{fill-opacity:.04}
.h0{background:color-mix(in srgb,var(--main) 4%,var(--paper))}
.h1{background:color-mix(in srgb,var(--main) 12%,var(--paper))}
.h2{background:color-mix(in srgb,var(--main) 20%,var(--paper))}
.h3{background:color-mix(in srgb,var(--main) 28%,var(--paper))}
.h4{background:color-mix(in srgb,var(--main) 38%,var(--paper))}
.h2 small,.h3 small,.h4 small{color:inherit}
.k0{--kind:var(--main)}.k1{--kind:var(--best)}.k2{--kind:var(--configured)}.k3{--kind:var(--failed)}
.k4{--kind:var(--pruned)}.k5{--kind:var(--other)}
.curve{fill:none;stroke:var(--kind);stroke-width:2}
.point{fill:var(--kind);stroke:var(--paper);stroke-width:.8}
.spread{fill:var(--kind);fill-opacity:.14}
.dashed{stroke-dasharray:7 3}.dotted{stroke-dasharray:2 3}
.printed{fill:none;stroke:var(--muted);stroke-width:1;stroke-dasharray:4 3}
.s0{fill:none;stroke:var(--main);stroke-opacity:.75}.s1{fill:none;stroke:var(--main);stroke-opacity:.4}
.s2{fill:none;stroke:var(--muted);stroke-opacity:.28}.s3{fill:none;stroke:var(--muted);stroke-opacity:.16}
@media print{:root{color-scheme:light;--paper:#fff;--raised:#f6f8fa;--ink:#000;--muted:#444;--line:#bbb;--main:#0072b2;
--best:#d55e00;--configured:#009e73;--failed:#b0457f;--pruned:#8a6d00;--other:#6a3d9a}
body{max-width:none;padding:0;font-size:11pt}.wide{overflow:visible}.wide svg{min-width:0}
figure,tr,.verdict,pre{break-inside:avoid}h2,h3,caption{break-after:avoid}th button::after{content:""}
.choose label{display:none}details::details-content{content-visibility:visible;block-size:auto}
[data-choice][hidden]{display:block}
table{font-size:8pt}th,td{white-space:normal}th button{padding:.2rem}td,tbody th{padding:.2rem;position:static}}
"""

# A click sorts by that column, numbers as numbers (by `data-value` where a cell has one), empty cells last; a second
# one turns it round. A filter keeps the rows that hold every word. No field is there without this script.
SCRIPT = """
document.querySelectorAll("th button").forEach(button=>button.addEventListener("click",()=>{
const head=button.parentElement,body=head.closest("table").tBodies[0],column=head.cellIndex;
const sign=head.getAttribute("aria-sort")==="ascending"?-1:1;
const key=row=>{const cell=row.cells[column],text=cell.textContent;
const number=parseFloat(cell.dataset.value||text.replace("\\u2212","-"));
return{text,number:isNaN(number)?null:number}};
const compare=(a,b)=>a.number!==null&&b.number!==null?sign*(a.number-b.number):
a.number!==null?-1:b.number!==null?1:!a.text!==!b.text?(a.text?-1:1):sign*a.text.localeCompare(b.text);
[...body.rows].map(row=>[key(row),row]).sort((a,b)=>compare(a[0],b[0])).forEach(([,row])=>body.append(row));
head.parentElement.querySelectorAll("th").forEach(other=>other.removeAttribute("aria-sort"));
head.setAttribute("aria-sort",sign>0?"ascending":"descending")}));
const field=(tag,words,about)=>{const line=document.createElement("div"),label=document.createElement("label");
const made=document.createElement(tag);line.className="choose";made.autocomplete="off";
made.setAttribute("aria-label",words+": "+about);
label.append(words,made);line.append(label);return[line,made]};
document.querySelectorAll("table[data-filter]").forEach(table=>{
const said=row=>[...row.cells].map(cell=>cell.textContent).join(" ").toLowerCase();
const rows=[...table.tBodies[0].rows].map(row=>[row,said(row)]);
const[line,input]=field("input","Filter rows",table.caption.textContent),count=document.createElement("output");
input.type="search";count.setAttribute("aria-live","polite");line.append(count);
const filter=()=>{const words=input.value.toLowerCase().split(/\\s+/);let shown=0;
rows.forEach(([row,text])=>{row.hidden=!words.every(word=>text.includes(word));shown+=!row.hidden});
count.textContent=shown===rows.length?`${shown} rows`:`${shown} of ${rows.length} rows`};
input.addEventListener("input",filter);filter();table.closest(".wide").before(line)});
document.querySelectorAll("[data-choose]").forEach(parts=>{
const[line,select]=field("select",parts.dataset.choose,parts.dataset.about),all=[...parts.children];
all.forEach(part=>{const option=document.createElement("option");option.textContent=part.dataset.choice;
select.append(option)});
const choose=()=>all.forEach((part,index)=>{part.hidden=index!==select.selectedIndex});
select.addEventListener("change",choose);choose();parts.before(line)});
"""
