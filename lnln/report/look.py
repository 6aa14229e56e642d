"""How the page looks and what its tables do: one style sheet for light, dark and paper, and a script that sorts."""

# Okabe and Ito's colours, as in lnln/report/charts.py; the lighter of them on dark.
STYLE = """
:root{color-scheme:light dark;--paper:#fff;--raised:#f6f8fa;--ink:#1b1f24;--muted:#57606a;--line:#d8dee4;
--main:#0072b2;--best:#d55e00;--configured:#009e73;--failed:#b0457f;--pruned:#8a6d00}
@media (prefers-color-scheme:dark){:root{--paper:#0f1419;--raised:#171d24;--ink:#e6edf3;--muted:#9aa4af;--line:#2c343d;
--main:#56b4e9;--best:#e69f00;--configured:#2fc79b;--failed:#e08bb9;--pruned:#c9b458}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:74rem;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem}
h2{font-size:1.2rem;margin:2.6rem 0 .4rem;padding-top:.9rem;border-top:1px solid var(--line)}
p,ul{max-width:52rem}
ul{padding-left:1.2rem}
.facts,figcaption,caption{color:var(--muted);font-size:.875rem}
.verdict{background:var(--raised);border-left:4px solid var(--best);padding:.9rem 1.1rem;border-radius:0 .4rem .4rem 0;
margin:1.2rem 0}
.verdict p{margin:.35rem 0}
.verdict p:first-child{font-size:1.1rem}
a{color:var(--main)}
code,pre{font:.875em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--raised);
border-radius:.25rem}
code{padding:.1em .3em}
pre{padding:.8rem 1rem;overflow-x:auto;border:1px solid var(--line)}
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
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;margin:.4rem 0}
caption{text-align:left;padding:.3rem 0}
th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:.3rem}
td.long{white-space:normal;min-width:16rem;text-align:left}
th{border-bottom:2px solid var(--line);padding:0}
th button{all:unset;cursor:pointer;font-weight:600;padding:.3rem .7rem}
th:first-child button{padding-left:.3rem}
th button:focus-visible,.wide:focus-visible{outline:2px solid var(--main);outline-offset:-2px}
th button::after{content:"\\00a0\\2195";color:var(--line)}
th[aria-sort=ascending] button::after{content:"\\00a0\\2191";color:var(--ink)}
th[aria-sort=descending] button::after{content:"\\00a0\\2193";color:var(--ink)}
tr.lit td{background:var(--raised);font-weight:600}
svg text{fill:var(--muted);font:11px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
svg text.label{fill:var(--ink);font-size:12px}
.end{text-anchor:end}
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
.s0{fill:none;stroke:var(--main);stroke-opacity:.75}.s1{fill:none;stroke:var(--main);stroke-opacity:.4}
.s2{fill:none;stroke:var(--muted);stroke-opacity:.28}.s3{fill:none;stroke:var(--muted);stroke-opacity:.16}
@media print{:root{color-scheme:light;--paper:#fff;--raised:#f6f8fa;--ink:#000;--muted:#444;--line:#bbb;--main:#0072b2;
--best:#d55e00;--configured:#009e73;--failed:#b0457f;--pruned:#8a6d00}
body{max-width:none;padding:0;font-size:11pt}.wide{overflow:visible}.wide svg{min-width:0}
figure,tr,.verdict,pre{break-inside:avoid}h2{break-after:avoid}th button::after{content:""}
table{font-size:8pt}th,td{white-space:normal}th button{padding:.2rem}td{padding:.2rem}}
"""

# A click sorts by that column, numbers as numbers, empty cells last; a second one turns it round.
SCRIPT = """
document.querySelectorAll("th button").forEach(button=>button.addEventListener("click",()=>{
const head=button.parentElement,body=head.closest("table").tBodies[0],column=head.cellIndex;
const sign=head.getAttribute("aria-sort")==="ascending"?-1:1;
const key=row=>{const text=row.cells[column].textContent,number=parseFloat(text.replace("\\u2212","-"));
return{text,number:isNaN(number)?null:number}};
const compare=(a,b)=>a.number!==null&&b.number!==null?sign*(a.number-b.number):
a.number!==null?-1:b.number!==null?1:!a.text!==!b.text?(a.text?-1:1):sign*a.text.localeCompare(b.text);
[...body.rows].map(row=>[key(row),row]).sort((a,b)=>compare(a[0],b[0])).forEach(([,row])=>body.append(row));
head.parentElement.querySelectorAll("th").forEach(other=>other.removeAttribute("aria-sort"));
head.setAttribute("aria-sort",sign>0?"ascending":"descending")}));
"""
