export function clientReport(url: string): Promise<Record<string, Record<string, unknown>>>;
