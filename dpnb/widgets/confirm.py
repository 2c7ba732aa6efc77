"""A question before something that cannot be taken back: one line with the words and two buttons."""

from __future__ import annotations

from collections.abc import Callable

from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.look import Look, escape, set_class


class Confirm:
    """Unseen until it has something to ask. The newest question replaces the one before it."""

    def __init__(self, look: Look) -> None:
        self._act: Callable[[], object] = lambda: None
        self._words = look.html()
        self.yes = look.button("Yes", "dpnb-small", kind="danger")
        self.no = look.button("Cancel", "dpnb-small", tooltip="Leave it as it is")
        self.yes.on_click(lambda _: self._confirmed())
        self.no.on_click(lambda _: self.withdraw())
        self.widget = look.box((self._words, self.yes, self.no), "dpnb-bar", "dpnb-hidden", "dpnb-message")

    def ask(self, question: str, yes: str, act: Callable[[], object]) -> None:
        """Show a question (plain text); `act` is called when the button with the words `yes` is clicked."""
        self._act = act
        self._words.value = f'<span class="dpnb-warning" role="alert">{escape(question)}</span>'
        self.yes.description = self.yes.tooltip = yes
        set_class(self.widget, "dpnb-hidden", on=False)
        answer_while_busy(self.yes, self.no)

    @property
    def is_asking(self) -> bool:
        """True while a question is to be seen."""
        return "dpnb-hidden" not in self.widget._dom_classes

    def withdraw(self) -> None:
        """Take the question away; nothing is done."""
        self._act = lambda: None
        set_class(self.widget, "dpnb-hidden", on=True)

    def _confirmed(self) -> None:
        act = self._act
        self.withdraw()
        act()
