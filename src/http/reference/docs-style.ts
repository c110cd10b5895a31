/** How the documentation page looks: one column of text beside its contents, dark and light by the reader's choice. */
export const DOCS_STYLE: string = `
:root { color-scheme: light dark; --line: light-dark(#d8dee4, #3a4149); --soft: light-dark(#57606a, #9aa4af);
  --back: light-dark(#f6f8fa, #1c2128); --link: light-dark(#0550ae, #7ab7ff); }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; background: light-dark(#fff, #14181d); color: light-dark(#1f2328, #e2e7ec); }
a { color: var(--link); text-decoration: none; } a:hover, a:focus-visible { text-decoration: underline; }
code, pre { font: 0.9em/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--back); border: 1px solid var(--line); border-radius: 6px; padding: 0.7rem 1rem; overflow-x: auto; white-space: pre-wrap; }
nav { padding: 1rem 1.5rem; border-bottom: 1px solid var(--line); }
nav ul { list-style: none; margin: 0 0 0.8rem; padding: 0; } nav b { font-size: 0.85rem; color: var(--soft); }
nav li a { display: grid; grid-template-columns: 4.2em 1fr; } td:first-child code { white-space: nowrap; }
main { padding: 1rem 1.5rem 4rem; max-width: 62rem; }
section { border-top: 1px solid var(--line); padding: 0.4rem 0 1rem; scroll-margin-top: 0; }
h1, h2, h3, h4 { line-height: 1.25; overflow-wrap: anywhere; } h3 { font-size: 1.05rem; margin: 1rem 0 0.3rem; }
h4 { font-size: 0.95rem; margin: 1rem 0 0.2rem; }
:target { outline: 2px solid var(--link); outline-offset: 6px; border-radius: 2px; }
h4 > code { font-size: 1rem; }
.method { display: inline-block; min-width: 4.2em; font-weight: 700; }
.soft { color: var(--soft); }
ul.tree { list-style: none; margin: 0.2rem 0; padding-left: 1.1rem; border-left: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: 0.3rem 1rem 0.3rem 0; border-bottom: 1px solid var(--line); }
.wide { overflow-x: auto; }
.skip { position: absolute; left: -999px; } .skip:focus { left: 1rem; top: 0.5rem; }
@media (min-width: 70rem) { body { display: grid; grid-template-columns: 24rem 1fr; }
  nav { border-bottom: 0; border-right: 1px solid var(--line); position: sticky; top: 0; height: 100vh; overflow-y: auto; } }
`
