// Typesets the page's formulas with the KaTeX that is shipped beside this file: no network is needed.
// Pages hold them as \(...\) and \[...\] in elements of class `arithmatex`, notebooks as $...$.
document.addEventListener("DOMContentLoaded", () => {
  const paired = [
    { left: "\\[", right: "\\]", display: true },
    { left: "\\(", right: "\\)", display: false },
  ];
  const dollars = [
    { left: "$$", right: "$$", display: true },
    { left: "$", right: "$", display: false },
  ];
  for (const element of document.querySelectorAll(".arithmatex")) {
    renderMathInElement(element, { delimiters: paired, throwOnError: false });
  }
  for (const element of document.querySelectorAll(".jupyter-wrapper .jp-RenderedMarkdown")) {
    renderMathInElement(element, { delimiters: dollars, throwOnError: false });
  }
});
