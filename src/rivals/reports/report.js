"use strict";
// The timelines: each shows one sample grid at a time, chosen by slider, arrow keys or play button.
(() => {
  const timelines = [...document.querySelectorAll(".timeline[data-frames]")].map((figure) => {
    const image = figure.querySelector("img");
    const now = figure.querySelector(".now");
    const slider = figure.querySelector("input");
    const button = figure.querySelector("button");
    const frames = JSON.parse(document.getElementById(figure.dataset.frames).textContent);
    // The last grid is in the page already, so that it shows without a script as well.
    frames[frames.length - 1].uri = image.src;
    let timer = 0;

    const show = (index) => {
      const frame = frames[Math.min(Math.max(index, 0), frames.length - 1)];
      slider.value = frames.indexOf(frame);
      slider.setAttribute("aria-valuetext", frame.at);
      image.src = frame.uri;
      image.alt = `Sample grid after ${frame.at}`;
      now.replaceChildren(frame.at, Object.assign(document.createElement("small"), { textContent: frame.note }));
    };
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      button.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-label", "Play");
    };
    const play = () => {
      if (Number(slider.value) === frames.length - 1) show(0);
      button.setAttribute("aria-pressed", "true");
      button.setAttribute("aria-label", "Pause");
      timer = setInterval(() => {
        show(Number(slider.value) + 1);
        if (Number(slider.value) === frames.length - 1) stop();
      }, Math.max(120, Math.min(500, 8000 / frames.length)));
    };
    const step = (by) => {
      stop();
      show(Number(slider.value) + by);
    };
    slider.max = frames.length - 1;
    slider.value = frames.length - 1;
    slider.addEventListener("input", () => step(0));
    button.addEventListener("click", () => (timer ? stop() : play()));
    figure.classList.add("live");
    return { figure, step };
  });

  // Arrow keys move the timeline that was touched last, or the one in sight.
  const middle = (figure) => {
    const box = figure.getBoundingClientRect();
    return Math.abs((box.top + box.bottom - window.innerHeight) / 2);
  };
  document.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey || !timelines.length) return;
    if (event.target.closest?.(".scroll")) return;
    const own = timelines.find(({ figure }) => figure.contains(event.target));
    const nearest = timelines.reduce((a, b) => (middle(b.figure) < middle(a.figure) ? b : a));
    (own ?? nearest).step(by);
    event.preventDefault();
  });
})();
