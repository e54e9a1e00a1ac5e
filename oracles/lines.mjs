// What the oracles share: one JSON object a line in, one a line out, in order.
import { createInterface } from 'node:readline';

// answer calls judge for every line. What it returns is the answer; what it
// throws becomes {"ok":false,"error":…} and the exit code 1.
export async function answer(judge) {
  for await (const line of createInterface({ input: process.stdin })) {
    let id = null;
    try {
      const row = JSON.parse(line);
      id = row.id ?? null;
      console.log(JSON.stringify({ id, ok: true, ...(await judge(row)) }));
    } catch (e) {
      console.log(JSON.stringify({ id, ok: false, error: String(e?.message ?? e) }));
      process.exitCode = 1;
    }
  }
}

// same throws unless both spell the same.
export function same(what, got, want) {
  if (String(got) !== String(want)) throw new Error(`${what} is ${got}, want ${want}`);
}
