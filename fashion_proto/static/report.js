// Filters, larger pictures and judgements in a report. All of it can be read without this script.
(() => {
  const script = document.currentScript;
  const root = script ? script.closest('.fashion-audit') : document.querySelector('.fashion-audit:not(.live)');
  if (!root || root.classList.contains('live')) return;
  root.classList.add('live');
  const all = selector => [...root.querySelectorAll(selector)];
  const judged = new Map(JSON.parse(root.dataset.judged).map(told => [key(told), told]));
  const before = judged.size;

  function key(told) { return JSON.stringify([told.kind, [...told.images].sort(), told.label ?? null]); }

  // Which severities and which cards are shown
  const chosen = new Set(), words = root.querySelector('.filter input');
  function filter() {
    all('[data-severity]').forEach(part => { part.hidden = chosen.size > 0 && !chosen.has(part.dataset.severity); });
    const text = words.value.trim().toLowerCase();
    all('figure').forEach(card => { card.hidden = text !== '' && !card.textContent.toLowerCase().includes(text)
      && ![...card.querySelectorAll('img')].some(image => image.alt.toLowerCase().includes(text)); });
  }
  all('.filter button').forEach(button => button.addEventListener('click', () => {
    const severity = button.value, on = !chosen.has(severity);
    on ? chosen.add(severity) : chosen.delete(severity);
    button.setAttribute('aria-pressed', on);
    filter();
  }));
  words.addEventListener('input', filter);

  // A link opens the section that it leads to
  all('ul.findings a').forEach(link => link.addEventListener('click', () => {
    root.querySelector(link.getAttribute('href')).closest('details').open = true; }));

  // A picture in large
  const dialog = root.querySelector('dialog'), large = document.createElement('img');
  function enlarge(image) {
    large.src = image.src; large.alt = image.alt;
    large.className = `${image.closest('.ink') ? 'ink' : ''} ${image.closest('.photos') ? 'photo' : ''}`.trim();
    dialog.prepend(large);
    dialog.querySelector('p').textContent = image.alt;
    dialog.showModal();
  }
  all('figure img').forEach(image => {
    image.tabIndex = 0;
    image.setAttribute('role', 'button');
    image.addEventListener('click', () => enlarge(image));
    image.addEventListener('keydown', event => {
      if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); enlarge(image); } });
  });
  dialog.addEventListener('click', event => { if (event.target === dialog) dialog.close(); });

  // Judgements, and a file of them
  const bar = root.querySelector('.save'), says = bar.querySelector('span');
  let saved = true;
  function show() {
    all('figure[data-key]').forEach(card => {
      const told = judged.get(key(JSON.parse(card.dataset.key)));
      card.classList.toggle('judged', told !== undefined);
      card.querySelectorAll('button').forEach(button =>
        button.setAttribute('aria-pressed', told !== undefined && told.judgement === button.value));
    });
    const n = judged.size - before;
    bar.hidden = saved && n === 0;
    says.textContent = `${n} new ${n === 1 ? 'judgement' : 'judgements'}${saved ? ', saved' : ''}`;
  }
  all('figure[data-key] button').forEach(button => button.addEventListener('click', () => {
    const told = JSON.parse(button.closest('figure').dataset.key), name = key(told);
    if (judged.get(name)?.judgement === button.value) judged.delete(name);
    else judged.set(name, { ...told, judgement: button.value });
    saved = false;
    show();
  }));
  bar.querySelector('button').addEventListener('click', () => {
    const text = JSON.stringify({ format: 'fashion-proto reviewed', version: 1, judgements: [...judged.values()] }, null, 1);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
    link.download = 'reviewed.json';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    saved = true;
    show();
  });
  window.addEventListener('beforeunload', event => { if (!saved) event.preventDefault(); });
  show();
})();
