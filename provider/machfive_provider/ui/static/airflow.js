// What the page needs of Airflow's page around it. Airflow shows plugins in a sandboxed frame that may not navigate it
// and, before 3.3, may not download: a link put into Airflow's own document does both.

const outer = (() => {
  try { return window.parent !== window && window.parent.document ? window.parent : null; }
  catch (error) { return null; } // another origin
})();

export const inAirflow = () => outer !== null;

export function openInAirflow(address, download = false) {
  const link = outer.document.createElement("a");
  link.href = address;
  link.hidden = true;
  if (download) link.download = "";
  outer.document.body.append(link);
  if (download) link.click();
  else { // Airflow's router listens to this, so nothing is loaded anew
    outer.history.pushState(null, "", address);
    outer.dispatchEvent(new PopStateEvent("popstate"));
  }
  link.remove();
}

// Airflow's own address shows what the frame shows, so that it can be copied. Airflow 3.1 does not hand the query to the
// frame: then the frame takes it from there.
export function shareAddress() {
  if (!outer) return;
  if (!location.search && outer.location.search) location.replace(location.pathname + outer.location.search);
  else outer.history.replaceState(outer.history.state, "", `${document.body.dataset.base}/plugin/machfive/machfive/${location.search}`);
}

// Airflow's theme is a class of its <html>; alone, the page follows the system.
export function followTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = outer?.document.documentElement;
  const apply = () => {
    const airflow = root?.classList.contains("dark") ? "dark" : root?.classList.contains("light") ? "light" : "";
    document.documentElement.dataset.theme = airflow || (system.matches ? "dark" : "light");
  };
  apply();
  system.addEventListener("change", apply);
  if (root) new MutationObserver(apply).observe(root, { attributes: true, attributeFilter: ["class"] });
}
