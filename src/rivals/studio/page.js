() => {
  // The size of a pixel of the screen, by multiples of which images are shown.
  const measure = () => document.documentElement.style.setProperty("--pixel", `${1 / window.devicePixelRatio}px`);
  addEventListener("resize", measure);
  measure();

  // Ask each second whether there is anything new, and refresh only then; a hidden page asks nothing.
  const page = Math.random().toString(36).slice(2);
  const isShown = (id) => document.getElementById(id)?.offsetParent;
  let seen = {}, refreshed = 0;
  const poll = async () => {
    const button = isShown("runs-list") ? "refresh-runs" : isShown("equilibrium-view") ? "refresh-equilibrium" : null;
    if (button && !document.hidden) {
      try {
        const answer = await (await fetch(`studio/updates?page=${page}`)).json();
        const isDue = Date.now() - refreshed >= 1000 * answer.wait;
        if (answer.runs !== seen.runs || button !== seen.button || (answer.records !== seen.records && isDue)) {
          seen = { ...answer, button };
          refreshed = Date.now();
          document.getElementById(button).click();
        }
      } catch { /* the studio was closed: the page stays as it is */ }
    }
    setTimeout(poll, 1000);
  };
  poll();
}
