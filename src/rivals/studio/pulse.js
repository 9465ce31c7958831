// Ask each second whether there is something new, and look only then: an unseen page asks nothing.
() => {
  const me = Math.random().toString(36).slice(2);
  const shown = (id) => document.getElementById(id)?.offsetParent;
  let seen = {}, looked = 0;
  const beat = async () => {
    const look = shown("runs-list") ? "look-runs" : shown("draw") ? "look-game" : null;
    if (look && !document.hidden) {
      try {
        const told = await (await fetch(`studio/pulse?page=${me}`)).json();
        const due = Date.now() - looked >= 1000 * told.wait;
        if (told.news !== seen.news || look !== seen.look || (told.records !== seen.records && due)) {
          seen = { ...told, look };
          looked = Date.now();
          document.getElementById(look).click();
        }
      } catch { /* the studio was closed: the page stays as it is */ }
    }
    setTimeout(beat, 1000);
  };
  beat();
}
