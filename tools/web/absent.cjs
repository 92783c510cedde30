// In place of zarrita, which NiiVue reads stores with: the page reads its own, so that 1.4 MB stay away.
module.exports = {};
