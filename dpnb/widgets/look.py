"""How every dpnb panel looks: one style sheet on JupyterLab's own colours, shared style objects, escaping, closing.

Each ipywidget opens three models: itself, its Layout and its Style. `Look` makes one Layout and one Style of each
kind for a whole panel, and all else is said by CSS classes: that keeps a form of sixty fields near seventy models.
"""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Iterable
from typing import Any

import ipywidgets as w

STYLE_SHEET = """<style>
.dpnb { color: var(--jp-ui-font-color1); font-size: var(--jp-ui-font-size1); max-width: 1280px; overflow: visible; }
.dpnb .jupyter-widgets { color: var(--jp-ui-font-color1); }
.dpnb .widget-html, .dpnb .widget-html-content { line-height: 1.45; height: auto; margin: 0; overflow: visible;
  font-size: var(--jp-ui-font-size1); }
.dpnb h3 { font-size: 15px; font-weight: 600; margin: 0; color: var(--jp-ui-font-color0); }
.dpnb h4 { font-size: 13px; font-weight: 600; margin: 10px 0 2px; color: var(--jp-ui-font-color1); }
.dpnb .dpnb-quiet { color: var(--jp-ui-font-color2); }
.dpnb .dpnb-hidden { display: none !important; }
.dpnb .dpnb-bar { display: flex; flex-flow: row wrap; align-items: center; gap: 6px 12px; overflow: visible; }
.dpnb .dpnb-bar > * { margin: 0; }
.dpnb .dpnb-bar > .dpnb-spring { flex: 1 1 0; }
.dpnb .dpnb-bar h4 { margin: 0; }
.dpnb .dpnb-bar > .widget-checkbox { width: auto; }
.dpnb .widget-checkbox { align-items: center; }
.dpnb .widget-checkbox > .widget-label-basic { display: flex; align-items: center; line-height: 22px;
  overflow: visible; }
.dpnb .widget-checkbox > .widget-label-basic > input { margin: 0 6px 0 0; flex: none; }
.dpnb .dpnb-bar > .widget-checkbox .widget-label-basic { width: auto; }
.dpnb .dpnb-card { border: 1px solid var(--jp-border-color2); border-radius: 6px; padding: 12px 16px 14px;
  margin: 0 0 12px; background: var(--jp-layout-color1); overflow: visible; }
.dpnb .dpnb-card .dpnb-card { background: none; padding: 8px 12px 6px; margin: 6px 0; }
.dpnb .jupyter-button { width: auto; min-width: 88px; padding: 0 12px; border-radius: 4px; margin: 0; flex: none; }
.dpnb .jupyter-button.mod-danger { color: #fff; }
.dpnb .dpnb-small.jupyter-button { min-width: 0; height: 24px; line-height: 24px; padding: 0 10px; font-size: 12px; }
.dpnb .jupyter-button:focus-visible, .dpnb input:focus-visible, .dpnb select:focus-visible {
  outline: 2px solid var(--jp-brand-color1); outline-offset: 1px; }

.dpnb .dpnb-grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 16px 24px;
  padding: 8px 0; align-items: start; overflow: visible; }
.dpnb .dpnb-cell { display: flex; flex-direction: column; min-width: 0; overflow: visible; margin: 0; }
.dpnb .dpnb-wide { grid-column: 1 / -1; }
.dpnb .dpnb-cell > .widget-inline-hbox { width: 100%; margin: 0; overflow: visible; }
.dpnb .dpnb-cell > .widget-text, .dpnb .dpnb-cell > .widget-dropdown, .dpnb .dpnb-cell > .widget-textarea,
.dpnb .dpnb-cell > .widget-combobox, .dpnb .dpnb-cell > .widget-password {
  flex-direction: column; align-items: stretch; height: auto; }
.dpnb .dpnb-cell > .widget-inline-hbox > .widget-label { width: auto !important; max-width: none; height: 22px;
  line-height: 22px; text-align: left; margin: 0; font-weight: 500; color: var(--jp-ui-font-color1); }
.dpnb .dpnb-cell > .widget-inline-hbox > input, .dpnb .dpnb-cell > .widget-inline-hbox > select { flex: none;
  width: 100%; height: var(--jp-widgets-inline-height); padding: 0 8px; }
.dpnb .dpnb-cell > .widget-textarea > textarea { height: 52px; min-height: 34px; flex: none; width: 100%;
  padding: 5px 8px; resize: vertical; }
.dpnb .dpnb-cell input::placeholder, .dpnb .dpnb-cell textarea::placeholder { color: var(--jp-ui-font-color3);
  font-style: italic; opacity: 1; }
.dpnb .dpnb-cell > .widget-checkbox { height: 22px; min-height: 22px; }
.dpnb .dpnb-cell > .widget-checkbox .widget-label-basic { font-weight: 500; width: auto; }
.dpnb .dpnb-note { margin-top: 3px; }
.dpnb .dpnb-note .widget-html-content { font-size: 12px; line-height: 1.35; color: var(--jp-ui-font-color2); }
.dpnb .dpnb-changed { color: var(--jp-brand-color1); white-space: nowrap; }
.dpnb .dpnb-found { color: var(--jp-success-color0, var(--jp-success-color1)); white-space: nowrap; }
.dpnb .dpnb-error { color: var(--jp-error-color1); display: block; }
.dpnb .dpnb-warning { color: var(--jp-warn-color0, var(--jp-warn-color1)); display: block; }
.dpnb .dpnb-bad > .widget-inline-hbox > input, .dpnb .dpnb-bad > .widget-inline-hbox > textarea,
.dpnb .dpnb-bad > .widget-inline-hbox > select { border-color: var(--jp-error-color1) !important; }
.dpnb .dpnb-pages { margin: 8px 0 0; }
.dpnb .dpnb-pages > .widget-tab-contents { padding: 8px 16px 12px; overflow: visible; }
.dpnb .dpnb-pages, .dpnb .dpnb-pages > .widget-tab-contents > * { overflow: visible; }
.dpnb .dpnb-pages.jupyter-widget-tab > .lm-TabBar { height: auto; min-height: 0; max-height: none; flex: none; }
.dpnb .dpnb-pages.jupyter-widget-tab > .lm-TabBar .lm-TabBar-content { flex-wrap: wrap; }
.dpnb .dpnb-pages.jupyter-widget-tab > .lm-TabBar .lm-TabBar-tab { flex: 0 0 auto; min-width: 0; padding: 0 8px; }
.dpnb .jupyter-button.mod-primary { color: #fff; }
.dpnb .widget-dropdown > select { background-image: ARROW; }

.dpnb .dpnb-bar > .dpnb-search { width: 290px; flex: none; }
.dpnb .dpnb-search > .widget-label { width: auto; font-weight: 500; }
.dpnb .dpnb-cell.dpnb-path { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 4px 8px;
  align-items: end; }
.dpnb .dpnb-cell.dpnb-stepped { display: grid; grid-template-columns: minmax(0, 1fr) auto auto; column-gap: 4px;
  align-items: end; align-content: start; }
.dpnb .dpnb-stepped > .dpnb-note, .dpnb .dpnb-stepped > .dpnb-reset { grid-column: 1 / -1; justify-self: start; }
.dpnb .dpnb-step.jupyter-button { min-width: 0; width: 28px; padding: 0; height: var(--jp-widgets-inline-height);
  line-height: var(--jp-widgets-inline-height); font-size: 0; }
.dpnb .dpnb-step::before { font-size: 16px; content: "+"; content: "+" / ""; }
.dpnb .dpnb-step-down::before { content: "\\2212"; content: "\\2212" / ""; }
.dpnb .dpnb-path > .dpnb-small.jupyter-button { height: var(--jp-widgets-inline-height); }
.dpnb .dpnb-path > .widget-textarea + .jupyter-button { align-self: start; margin-top: 22px; }
.dpnb .dpnb-bad > .dpnb-path > .widget-inline-hbox > input, .dpnb .dpnb-bad > .dpnb-path > .widget-textarea > textarea,
.dpnb .dpnb-bad > .dpnb-cell > .widget-inline-hbox > input { border-color: var(--jp-error-color1) !important; }
.dpnb .dpnb-picker { grid-column: 1 / -1; display: flex; flex-direction: column; gap: 8px; padding: 10px 12px;
  border: 1px solid var(--jp-border-color1); border-radius: 6px; background: var(--jp-layout-color1);
  overflow: visible; }
.dpnb .dpnb-entries { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 4px 8px; }
.dpnb .dpnb-entry.jupyter-button { width: 100%; text-align: left; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; background: none; }
.dpnb .dpnb-entry.jupyter-button:hover { background: var(--jp-layout-color2); box-shadow: none; }
.dpnb .dpnb-small.dpnb-reset.jupyter-button { align-self: flex-start; margin-top: 3px; height: 20px; line-height: 18px;
  padding: 0 8px; background: none; border: 1px solid var(--jp-brand-color1); color: var(--jp-brand-color1); }
.dpnb .dpnb-item { display: flex; flex-flow: row wrap; align-items: center; gap: 6px; }
.dpnb .dpnb-item > * { margin: 0; }
.dpnb .dpnb-item > .widget-vbox { flex: 1 0 100%; min-width: 0; overflow: visible; }
.dpnb .dpnb-fold.dpnb-small.jupyter-button { flex: 1 1 240px; min-width: 0; text-align: left; font-weight: 600;
  font-size: 13px; background: none; padding: 0 4px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.dpnb .dpnb-fold.jupyter-button:hover { background: var(--jp-layout-color2); box-shadow: none; }
.dpnb .dpnb-results { display: flex; flex-direction: column; overflow: visible; padding: 8px 0; }
.dpnb .dpnb-place .widget-html-content { font-size: 12px; color: var(--jp-ui-font-color2); font-weight: 600; }
.dpnb .dpnb-mono > .widget-textarea > textarea, .dpnb .dpnb-code pre { font-family: var(--jp-code-font-family);
  font-size: 12px; }
.dpnb .dpnb-toml { margin: 12px 0 0; padding: 4px 12px; border: 1px solid var(--jp-border-color2); border-radius: 6px;
  overflow: visible; }
.dpnb .dpnb-toml > .dpnb-fold.jupyter-button { flex: none; }
.dpnb .dpnb-toml .dpnb-bar { margin: 8px 0 4px; }
.dpnb .dpnb-code, .dpnb .dpnb-code > .widget-html-content { min-width: 0; max-width: 100%; }
.dpnb .dpnb-code > .widget-html-content { width: 100%; }
.dpnb .dpnb-code p { margin: 4px 0 0; }
.dpnb .dpnb-code pre { margin: 8px 0 0; padding: 8px 0; max-height: 420px; overflow: auto; line-height: 1.45;
  background: var(--jp-layout-color2); color: var(--jp-ui-font-color1); border-radius: 4px; }
.dpnb .dpnb-code pre span { display: inline-block; min-width: 100%; padding: 0 12px; white-space: pre; }
.dpnb .dpnb-code .dpnb-new { background: color-mix(in srgb, var(--jp-success-color1) 22%, transparent); }
.dpnb .dpnb-code .dpnb-old { background: color-mix(in srgb, var(--jp-error-color1) 22%, transparent); }
.dpnb .dpnb-code .dpnb-at { color: var(--jp-ui-font-color2); }

.dpnb .dpnb-badge { display: inline-block; border-radius: 10px; padding: 0 10px; font-size: 12px; font-weight: 600;
  border: 1px solid currentColor; }
.dpnb .dpnb-badge-running, .dpnb .dpnb-badge-starting { color: var(--jp-brand-color1); }
.dpnb .dpnb-badge-done, .dpnb .dpnb-badge-healthy { color: var(--jp-success-color0, var(--jp-success-color1)); }
.dpnb .dpnb-badge-stopped { color: var(--jp-ui-font-color2); }
.dpnb .dpnb-badge-failed, .dpnb .dpnb-badge-dead, .dpnb .dpnb-badge-unhealthy { color: var(--jp-error-color1); }
.dpnb .dpnb-figures { display: flex; flex-wrap: wrap; gap: 6px 32px; margin: 6px 0 8px; }
.dpnb .dpnb-figures b { display: block; font-size: 17px; font-weight: 600; font-variant-numeric: tabular-nums; }
.dpnb .dpnb-figures span { color: var(--jp-ui-font-color2); font-size: 12px; }
.dpnb .dpnb-track { height: 8px; border-radius: 4px; background: var(--jp-layout-color3); overflow: hidden;
  margin: 10px 0; }
.dpnb .dpnb-track > div { height: 100%; border-radius: 4px; background: var(--jp-brand-color1);
  transition: width 0.4s; }
.dpnb .dpnb-message { margin-top: 8px; }
.dpnb .dpnb-controls { margin-top: 6px; overflow: visible; }
.dpnb .dpnb-triage { display: flex; flex-direction: column; margin: 10px 0 2px; padding: 4px 14px 12px; gap: 6px;
  border: 1px solid var(--jp-error-color1); border-left-width: 4px; border-radius: 6px; overflow: visible; }
.dpnb .dpnb-triage h4 { margin: 8px 0 4px; } .dpnb .dpnb-triage p { margin: 4px 0; }
.dpnb .dpnb-evidence { overflow-wrap: anywhere; white-space: pre-wrap; }
.dpnb .dpnb-charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 14px;
  overflow: visible; margin: 8px 0 12px; }
.dpnb .dpnb-chart { overflow: hidden; }
.dpnb .dpnb-chart .bqplot { width: 100%; height: 190px; min-height: 0; margin: 0; }
.dpnb .dpnb-keys { font-size: 12px; color: var(--jp-ui-font-color2); }
.dpnb .dpnb-keys span { white-space: nowrap; margin-right: 10px; }
.dpnb .dpnb-keys i { display: inline-block; width: 14px; height: 0; border-top: 3px solid; vertical-align: middle;
  margin-right: 4px; }
.dpnb .dpnb-log pre { margin: 0; padding: 8px 10px; max-height: 240px; overflow: auto; font-size: 12px;
  line-height: 1.4; background: var(--jp-layout-color2); color: var(--jp-ui-font-color1); border-radius: 4px;
  white-space: pre-wrap; overflow-wrap: anywhere; display: flex; flex-direction: column-reverse; }
.dpnb table.dpnb-table { border-collapse: collapse; margin: 6px 0; font-size: 12px; }
.dpnb table.dpnb-table tr { background: none; }
.dpnb table.dpnb-table th, .dpnb table.dpnb-table td { text-align: left; padding: 3px 20px 3px 0; max-width: none;
  vertical-align: top; border-bottom: 1px solid var(--jp-border-color3); color: var(--jp-ui-font-color1); }
.dpnb table.dpnb-table th { color: var(--jp-ui-font-color2); font-weight: 600; }
.dpnb table.dpnb-table .dpnb-number { text-align: right; font-variant-numeric: tabular-nums; }

.dpnb .dpnb-strip { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(104px, 200px); gap: 12px;
  overflow-x: auto; align-items: start; padding: 2px 0 4px; }
.dpnb .dpnb-shot { display: flex; flex-direction: column; min-width: 0; margin: 0; overflow: visible; }
.dpnb .dpnb-shot img { width: 100%; height: auto; border-radius: 4px; margin: 0; display: block;
  object-fit: contain; }
.dpnb .dpnb-shot > .dpnb-bar { margin-top: 4px; flex-wrap: nowrap; justify-content: space-between; }
.dpnb .dpnb-caption .widget-html-content { font-size: 12px; color: var(--jp-ui-font-color2); line-height: 1.4;
  overflow-wrap: anywhere; }
.dpnb .dpnb-full img, .dpnb .dpnb-full .widget-video { max-width: 100%; min-width: 256px; width: auto;
  height: auto; border-radius: 4px; margin: 6px 0; align-self: flex-start; }

.dpnb .dpnb-captions { display: flex; flex-flow: row wrap; gap: 12px 24px; align-items: flex-start;
  overflow: visible; }
.dpnb .dpnb-captions > .widget-vbox { flex: 1 1 400px; min-width: 0; overflow: visible; }
.dpnb .dpnb-captions > .dpnb-tags { flex: 1 0 180px; max-width: 280px; }
.dpnb .dpnb-tags > .widget-select { flex-direction: column; align-items: stretch; height: auto; }
.dpnb .dpnb-tags > .widget-select > select { height: 440px; padding: 4px; }
.dpnb .dpnb-bar > .dpnb-short { width: auto; } .dpnb .dpnb-short > input, .dpnb .dpnb-short > select { width: 72px; }
.dpnb .dpnb-changes > * { margin: 4px 0; }
.dpnb .dpnb-captions-grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr));
  gap: 18px 20px; padding: 10px 0; align-items: start; overflow: visible; }
.dpnb .dpnb-thumb img { width: 100%; height: 160px; object-fit: contain; border-radius: 4px; margin: 0 0 2px;
  background: var(--jp-layout-color2); display: block; }
.dpnb .dpnb-captioned > .widget-textarea > textarea { height: 84px; font-family: var(--jp-ui-font-family); }
.dpnb .dpnb-captioned > .dpnb-note { flex-direction: column; }
.dpnb .dpnb-captioned > .widget-textarea:focus-within + .dpnb-note::before { content: "Saved when you leave the field";
  font-size: 12px; color: var(--jp-ui-font-color2); }
.dpnb textarea:focus-visible { outline: 2px solid var(--jp-brand-color1); outline-offset: 1px; }
.dpnb del { color: var(--jp-error-color1); } .dpnb ins { color: var(--jp-success-color0, var(--jp-success-color1)); }

.dpnb .dpnb-tabs > .widget-tab-contents { padding: 12px; background: none; }
.dpnb .dpnb-tabs > .widget-tab-contents > .lm-mod-hidden { display: flex !important; visibility: hidden;
  height: 0 !important; padding: 0; margin: 0; overflow: hidden !important; }
.dpnb .dpnb-tabs .dpnb { max-width: none; }
.dpnb .dpnb-bar > .dpnb-runs, .dpnb .dpnb-bar > .dpnb-target { width: 420px; max-width: 100%; }
.dpnb .dpnb-runs > .widget-label, .dpnb .dpnb-target > .widget-label { width: auto; font-weight: 500; }
.dpnb .dpnb-many { width: 100%; max-width: 640px; height: auto; margin: 8px 0 0; }
.dpnb .dpnb-many > select { height: auto; }
.dpnb .dpnb-run { padding: 2px 0 10px; }
.dpnb .dpnb-drawer { margin: 10px 0 0; gap: 8px; overflow: visible; }
.dpnb table.dpnb-facts code { white-space: pre-wrap; overflow-wrap: anywhere; }
.dpnb table.dpnb-facts th { white-space: nowrap; }
.dpnb .dpnb-compared { overflow-x: auto; }
"""
# The theme's own arrow is black, also on a dark page.
_ARROW = (
    "url(\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 18 18'%3E"
    "%3Cpath fill='%23808080' d='M4 6.5 9 11.5l5-5 1.2 1.2L9 13.9 2.8 7.7z'/%3E%3C/svg%3E\")"
)
STYLE_SHEET = STYLE_SHEET.replace("ARROW", _ARROW)
ORDERS = 64
ORDER = "dpnb-order-"
STYLE_SHEET += "\n".join(f".dpnb .{ORDER}{place} {{ order: {place}; }}" for place in range(ORDERS)) + "\n</style>"


def escape(text: object) -> str:
    """Text made safe for HTML; everything that comes from a file, a person or a trainer goes through here."""
    return html.escape(str(text), quote=True)


def picture_html(data: bytes, alt: str, kind: str = "webp") -> str:
    """A picture as HTML, of a kind that browsers name in `image/...`; an Image of ipywidgets has no words for who does
    not see it."""
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{b64encode(data).decode()}">'


class Look:
    """One panel's shared Layout and Style objects, and the widgets that panels are made of."""

    def __init__(self) -> None:
        self.layout = w.Layout()
        self._styles: dict[type, Any] = {}
        self._extra: list[Any] = [self.layout]

    def style(self, kind: Any) -> Any:  # noqa: ANN401 - ipywidgets has no types
        """The shared style of a style class."""
        if kind not in self._styles:
            arguments = {"description_width": "auto"} if "description_width" in kind.class_trait_names() else {}
            self._styles[kind] = kind(**arguments)
            self._extra.append(self._styles[kind])
        return self._styles[kind]

    def make(self, kind: Any, *, classes: Iterable[str] = (), **arguments: Any) -> Any:  # noqa: ANN401 - a widget
        """A widget of a class with the shared layout and style, and CSS classes of `STYLE_SHEET`."""
        if "style" in kind.class_trait_names():
            arguments["style"] = self.style(kind.class_traits()["style"].klass)
        return kind(layout=self.layout, _dom_classes=tuple(classes), **arguments)

    def html(self, text: str = "", *classes: str) -> Any:  # noqa: ANN401 - a widget
        """An HTML widget; `text` is HTML, with everything foreign escaped by the caller."""
        return self.make(w.HTML, value=text, classes=classes)

    def button(self, text: str, *classes: str, tooltip: str = "", kind: str = "") -> Any:  # noqa: ANN401 - a widget
        """A button with text; an icon alone would say nothing to a screen reader, and nothing at all under Voila."""
        return self.make(w.Button, description=text, tooltip=tooltip or text, button_style=kind, classes=classes)

    def box(self, children: Iterable[Any], *classes: str) -> Any:  # noqa: ANN401 - a widget
        """A box that CSS lays out."""
        return self.make(w.Box, children=tuple(children), classes=classes)

    def root(self, children: Iterable[Any], *classes: str) -> Any:  # noqa: ANN401 - a widget
        """The outermost box of a panel: it brings the style sheet with it."""
        return self.make(
            w.VBox, children=(self.html(STYLE_SHEET, "dpnb-hidden"), *children), classes=("dpnb", *classes)
        )

    def close(self) -> None:
        """Close the shared objects; call it after the widgets that use them are closed."""
        for model in self._extra:
            model.close()
        self._extra.clear()
        self._styles.clear()


def set_class(widget: Any, name: str, on: bool) -> None:  # noqa: ANN401 - a widget
    """Put a CSS class on a widget or take it off; nothing is sent when nothing changes."""
    if on and name not in widget._dom_classes:
        widget.add_class(name)
    elif not on and name in widget._dom_classes:
        widget.remove_class(name)


def set_order(widget: Any, place: int) -> None:  # noqa: ANN401 - a widget
    """Give a widget its place among its neighbours on the screen, whatever its position among `children` is.

    ipywidgets makes every view anew that stands behind a child which is inserted, removed or moved, and tells the old
    ones, once they are ready and gone, of their new size: a TypeError for each in the browser's console. So children
    are only ever appended in what is live, and this puts them in order.
    """
    assert 0 <= place < ORDERS, f"the style sheet has no place {place}"
    kept = [name for name in widget._dom_classes if not name.startswith(ORDER)]
    widget._dom_classes = (*kept, f"{ORDER}{place}")


def close_tree(widget: Any) -> None:  # noqa: ANN401 - a widget
    """Close a widget and everything below it; a closed parent alone leaves its children in the registry."""
    for child in getattr(widget, "children", ()):
        close_tree(child)
    widget.close()


def failure_html(panel: str, error: Exception) -> str:
    """What stands in a panel whose thread has ended with an error, as HTML."""
    words = f"The {panel} stopped: {type(error).__name__}: {error}. Run the cell again."
    return f'<span class="dpnb-error" role="alert">{escape(words)}</span>'
