/**
 * What the micro vocabulary is trained on: the kind of text our tests and examples put into prompts. Ours; any change
 * changes the vocabulary, so raise `FORMAT_VERSION` in models.mjs with it.
 */
export const TRAINING_TEXT = `You are a helpful assistant. Answer the user's question. Be short, be exact, and say so
when you do not know the answer. Use the tools when they help; do not make up a result.

# Tools

You may call one or more functions to assist with the user query. You are provided with function signatures within
<tools></tools> XML tags:
<tools>
{"type": "function", "function": {"name": "get_weather", "description": "Get the current weather for a city.", "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The name of the city."}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "The unit of the temperature."}}, "required": ["city"]}}}
{"type": "function", "function": {"name": "search_documents", "description": "Search the documents of the user.", "parameters": {"type": "object", "properties": {"query": {"type": "string", "description": "What to search for."}, "limit": {"type": "integer", "description": "The most results to return."}}, "required": ["query"]}}}
{"type": "function", "function": {"name": "read_file", "description": "Read a file and return its content.", "parameters": {"type": "object", "properties": {"path": {"type": "string", "description": "The path of the file."}, "encoding": {"type": "string"}, "offset": {"type": "number"}}, "required": ["path"], "additionalProperties": false}}}
{"type": "function", "function": {"name": "send_message", "description": "Send a message to another person.", "parameters": {"type": "object", "properties": {"to": {"type": "array", "items": {"type": "string"}}, "subject": {"type": "string"}, "body": {"type": "string"}}, "required": ["to", "body"]}}}
</tools>

For each function call, return a json object with function name and arguments within XML tags:
{"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius"}}
{"name": "search_documents", "arguments": {"query": "the plan for the next week", "limit": 10}}

user
What is the weather in Paris today? And what should I take with me?
assistant
The weather in Paris is clear, with a temperature of 21 degrees. You should take a light jacket for the evening.
user
Please read the file "notes/today.txt" and tell me what it says about the meeting.
assistant
I have read the file. The meeting is at ten in the morning; there are three things on the list: the state of the
project, the budget, and the plan for the next month. Would you like me to send a message to the others?
user
Yes, send it to everyone. Then write a function that adds two numbers.
assistant
Here is the function:

\`\`\`js
export function add(left, right) {
  return left + right;
}
\`\`\`

const result = await agent.run("What is the time?", { tools: [clock], maxTokens: 64 });
if (result.error) throw new Error(result.error.message);
console.log(result.text);

Each session starts with the same system prompt and the same tools. The prompt is long, the question is short, and so
most of the time would go into reading the prompt again. When the state of the prompt is kept, the next session starts
where the prompt ends, and the first token of the answer comes at once. It is not the same as a cache of answers: the
model still reads the question and thinks about it. There were many people in the room, and they were all talking
about the other thing. She said that he could have been here before, but no one had seen him. In the end they found
what they were looking for, right where it should have been all along.
`;
