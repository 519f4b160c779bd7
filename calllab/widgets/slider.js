// A slider that speaks in messages of its own.  The state of ordinary widgets is sent one change at a time, each
// after the kernel has said that it is idle again; while a cell runs that never happens, and all but the first
// movement would be lost.
function render({ model, el }) {
  const row = document.createElement("label");
  row.className = "calllab-slider";
  const name = document.createElement("span");
  name.textContent = model.get("label");
  const range = document.createElement("input");
  range.type = "range";
  range.setAttribute("aria-label", model.get("label"));
  for (const bound of ["min", "max", "step"]) range[bound] = model.get(bound);
  const shown = document.createElement("output");
  row.append(name, range, shown);
  el.append(row);

  const show = () => {
    shown.textContent = `${range.value} ${model.get("unit")}`;
  };
  const follow = () => {
    range.value = model.get("value");
    show();
  };
  range.addEventListener("input", show);
  range.addEventListener("change", () => model.send({ value: Number(range.value) }));
  model.on("change:value", follow);
  follow();
  return () => model.off("change:value", follow);
}

export default { render };
