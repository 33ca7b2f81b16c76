"""Which column means what: exports as programs write them, the user's own mapping, and what the cells hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machfive_provider.exceptions import ConfigurationError, InvalidLeadsError
from machfive_provider.leads.columns import check_columns
from machfive_provider.leads.prepare import prepare, read_leads, single_lead
from machfive_provider.leads.spellings import FIRST_NAME, LAST_NAME, NAME_PARTICLE, SPELLINGS, plain

DOCS = Path(__file__).parents[2] / "docs" / "leads.md"
EMAIL, NAME, TITLE, FIRM = "asha@example.com", "Asha Rao", "Buyer", "Northwind"
SITE, PROFILE = "northwind.example.com", "https://www.linkedin.com/in/asha-rao"
FIRST, LAST, OTHER = "Asha", "Rao", "other"
# The columns of each export that matter, or might be mistaken, in its own order and with what it writes there.
EXPORTS: dict[str, dict[str, str]] = {
    "Google Contacts": {
        "First Name": FIRST,
        "Middle Name": "",
        "Last Name": LAST,
        "Nickname": OTHER,
        "Organization Name": FIRM,
        "Organization Title": TITLE,
        "E-mail 1 - Label": "* Work",
        "E-mail 1 - Value": EMAIL,
        "Website 1 - Label": "Work",
        "Website 1 - Value": SITE,
    },
    "Google Contacts, older": {
        "Name": NAME,
        "Given Name": FIRST,
        "Family Name": LAST,
        "E-mail 1 - Type": "* Work",
        "E-mail 1 - Value": "",
        "E-mail 2 - Value": EMAIL,
        "Organization 1 - Name": FIRM,
        "Organization 1 - Title": TITLE,
        "Website 1 - Value": SITE,
    },
    "Outlook": {
        "Title": "Mrs.",
        "First Name": FIRST,
        "Last Name": LAST,
        "Company": FIRM,
        "Department": OTHER,
        "Job Title": TITLE,
        "E-mail Address": EMAIL,
        "E-mail Type": "SMTP",
        "E-mail Display Name": OTHER,
        "Web Page": SITE,
    },
    "LinkedIn": {
        "First Name": FIRST,
        "Last Name": LAST,
        "URL": PROFILE,
        "Email Address": EMAIL,
        "Company": FIRM,
        "Position": TITLE,
        "Connected On": "30 May 2024",
    },
    "Pipedrive": {
        "Person - Name": NAME,
        "Person - Organization": FIRM,
        "Person - Email - Work": "",
        "Lead - Title": OTHER,
        "Person - Email - Home": EMAIL,
        "Person - Phone - Work": "1",
        "Person - Job title": TITLE,
        "Organization - Website": SITE,
    },
    "Apollo": {
        "First Name": FIRST,
        "Last Name": LAST,
        "Title": TITLE,
        "Company": FIRM,
        "Company Name for Emails": OTHER,
        "Email": EMAIL,
        "Email Status": "Verified",
        "Seniority": OTHER,
        "Person Linkedin Url": PROFILE,
        "Website": SITE,
        "Company Linkedin Url": "https://www.linkedin.com/company/x",
        "Secondary Email": "b@x.com",
    },
    "HubSpot": {
        "Record ID": "1",
        "First Name": FIRST,
        "Last Name": LAST,
        "Email": EMAIL,
        "Contact owner": OTHER,
        "Associated Company": FIRM,
        "Job Title": TITLE,
        "Website URL": SITE,
        "LinkedIn URL": PROFILE,
    },
    "Salesforce": {
        "Salutation": "Ms.",
        "First Name": FIRST,
        "Last Name": LAST,
        "Title": TITLE,
        "Account Name": FIRM,
        "Account": "0015g00000XyZ",
        "Email": EMAIL,
        "Lead Source": "Web",
        "Website": SITE,
    },
    "ZoomInfo": {
        "Last Name": LAST,
        "First Name": FIRST,
        "Job Title": TITLE,
        "Email Address": EMAIL,
        "Company Name": FIRM,
        "LinkedIn Contact Profile URL": PROFILE,
        "Website": SITE,
        "Supplemental Email": "",
    },
    "Clay": {
        "First Name": FIRST,
        "Last Name": LAST,
        "Full Name": NAME,
        "Job Title": TITLE,
        "Company Domain": SITE,
        "Company Name": FIRM,
        "LinkedIn Profile": PROFILE,
        "Work Email": EMAIL,
        "Domain": "x.example.com",
    },
    "Instantly": {
        "email": EMAIL,
        "first_name": FIRST,
        "last_name": LAST,
        "company_name": FIRM,
        "personalization": OTHER,
        "website": SITE,
        "jobTitle": TITLE,
        "linkedIn": PROFILE,
        "Lead Status": OTHER,
    },
    "lemlist": {
        "email": EMAIL,
        "firstName": FIRST,
        "lastName": LAST,
        "companyName": FIRM,
        "icebreaker": OTHER,
        "linkedinUrl": PROFILE,
        "jobTitle": TITLE,
        "companyDomain": SITE,
    },
    "Hunter": {
        "Email address": EMAIL,
        "Domain name": SITE,
        "Organization": FIRM,
        "Confidence score": "97",
        "First name": FIRST,
        "Last name": LAST,
        "Position": TITLE,
        "LinkedIn URL": PROFILE,
        "Twitter handle": OTHER,
    },
    "Mailchimp": {"Email Address": EMAIL, "FNAME": FIRST, "LNAME": LAST, "MEMBER_RATING": "2", "Company": FIRM},
    "German": {
        "Anrede": "Frau",
        "Vorname": FIRST,
        "Nachname": LAST,
        "Geschäftliche E-Mail-Adresse": EMAIL,
        "Firma": FIRM,
        "Funktion": TITLE,
        "Webseite": SITE,
        "LinkedIn-Profil": PROFILE,
    },
    "German, Name for the surname": {"Vorname": FIRST, "Name": LAST, "E-Mail": EMAIL, "Unternehmen": FIRM},
    "French": {
        "Prénom": FIRST,
        "Nom": LAST,
        "Société": FIRM,
        "Intitulé du poste": TITLE,
        "Adresse e-mail": EMAIL,
        "Site web": SITE,
    },
    "Spanish": {
        "Nombre": FIRST,
        "Apellidos": LAST,
        "Correo electrónico": EMAIL,
        "Compañía": FIRM,
        "Puesto": TITLE,
        "Sitio web": SITE,
    },
    "Portuguese": {
        "Nome": FIRST,
        "Sobrenome": LAST,
        "Endereço de e-mail": EMAIL,
        "Empresa": FIRM,
        "Função": TITLE,
        "Página da web": SITE,
    },
    "Dutch": {
        "Voornaam": FIRST,
        "Tussenvoegsel": "",
        "Achternaam": LAST,
        "E-mailadres": EMAIL,
        "Bedrijfsnaam": FIRM,
        "Functie": TITLE,
        "Webpagina": SITE,
    },
}
RIGHT = {
    "email": EMAIL,
    "name": NAME,
    "title": TITLE,
    "company": FIRM,
    "company_website": SITE,
    "linkedin_url": PROFILE,
}


@pytest.mark.parametrize("export", EXPORTS)
def test_exports_are_recognised(export: str):
    columns = EXPORTS[export]
    sent = single_lead(columns).leads[0].to_json()
    held = set(columns.values())
    halves = {FIRST, LAST} <= held
    assert sent == {field: text for field, text in RIGHT.items() if text in held or (field == "name" and halves)}


def test_the_table_in_the_docs_says_what_is_recognised():
    rows = [line.strip("| ").split("|") for line in DOCS.read_text().splitlines() if line.count("|") == 8]
    header, _, *exports = rows
    assert [each.strip() for each in header] == ["export", "email", "name", "title", "company", "website", "LinkedIn"]
    assert len(exports) == 18
    for _, *cells in exports:
        for (field, spellings), cell in zip(SPELLINGS.items(), [each.strip() for each in cells], strict=False):
            names = {plain(name) for name in re.split(r"[,;]", cell) if name.strip()}
            halves = {*FIRST_NAME, *LAST_NAME, NAME_PARTICLE} if field == "name" else set()
            told = {"url"} if cell == "URL" else set()  # a person's page in LinkedIn's own column
            assert names <= {*spellings, *halves, *told}, cell


def test_what_is_spelled_twice_would_be_ambiguous():
    every = [each for spellings in (*SPELLINGS.values(), FIRST_NAME, LAST_NAME) for each in spellings]
    assert len(every) == len(set(every))
    assert every == [plain(each) for each in every]


@given(st.sampled_from([(field, each) for field, spellings in SPELLINGS.items() for each in spellings]))
def test_every_spelling_fills_its_field(spelled: tuple[str, str]):
    field, spelling = spelled
    lead = single_lead({**({} if field == "email" else {"E-Mail": EMAIL}), spelling: RIGHT[field]}).leads[0]
    assert getattr(lead, field) == RIGHT[field]


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"Last Name": LAST, "First Name": FIRST}, {"name": NAME}),
        ({"first_name": FIRST, "Surname": ""}, {"name": FIRST}),
        ({"Name": "", "First Name": FIRST, "Last Name": LAST}, {"name": NAME}),
        ({"Name": "A. Rao", "First Name": FIRST}, {"name": "A. Rao"}),
        ({"Contact": "C-17", "First Name": FIRST}, {"name": FIRST}),
        ({"Name": EMAIL, "Contact": NAME}, {"name": NAME}),
        ({"Voornaam": "Jan", "Tussenvoegsel": "van der", "Achternaam": "Berg"}, {"name": "Jan van der Berg"}),
        ({"Title": "Mrs.", "Job Title": ""}, {}),
        ({"Title": "Owner", "Job Title": None}, {"title": "Owner"}),
        ({"Account": "17", "Account Name": FIRM}, {"company": FIRM}),
        ({"Account": FIRM, "Account Name": " "}, {"company": FIRM}),
        ({"URL": PROFILE, "Domain": SITE}, {"company_website": SITE, "linkedin_url": PROFILE}),
        ({"Website": PROFILE, "LinkedIn": f"{PROFILE}-2"}, {"linkedin_url": f"{PROFILE}-2"}),
        ({"URL": "https://www.linkedin.com/company/x", "LinkedIn": "https://x.example.com"}, {}),
        ({"Website": EMAIL, "Company": EMAIL, "Account": "https://x.example.com"}, {}),
        ({"Work Email": "b@example.com"}, {}),
    ],
    ids=str,
)
def test_the_first_filled_column_whose_content_fits(fields: dict[str, Any], sent: dict[str, str]):
    assert single_lead({"Email": EMAIL, **fields}).leads[0].to_json() == {"email": EMAIL, **sent}


def test_each_row_is_judged_by_itself():
    rows = [
        {"Email": "", "Work Email": "a@example.com", "URL": SITE},
        {"Email": "b@example.com", "Work Email": "", "URL": PROFILE},
        {"Email": "none", "Work Email": "c@example.com", "URL": ""},
    ]
    leads = prepare(read_leads(rows)).leads
    assert [(each.email, each.company_website, each.linkedin_url) for each in leads] == [
        ("a@example.com", SITE, None),
        ("b@example.com", None, PROFILE),
        ("c@example.com", None, None),
    ]


def test_what_is_left_out_is_named_once_if_anything_is_in_it():
    first = {"email": "a@example.com", "Work Email": "x@example.com", "Age": "2", "Fax": " ", "Job Title": ""}
    second = {**first, "email": "b@example.com", "Mobile": 3, "Fax": None, "jane@example.com": "x", "Title": "Mr"}
    assert prepare(read_leads([first, second])).unknown_fields == (
        *("Work Email", "Age", "Mobile", "(an email address)", "Title"),
    )


@pytest.mark.parametrize(
    ("columns", "sent"),
    [
        ({"email": "To"}, {"email": EMAIL, "name": "Other"}),
        ({"email": " to ", "name": ["Last\nName", "first name"]}, {"email": EMAIL, "name": "Rao Asha"}),
        ({"email": ["Blank", "To"], "company": "Name"}, {"email": EMAIL, "company": "Other", "name": NAME}),
        ({"email": "To", "company_website": "Page"}, {"email": EMAIL, "name": "Other", "company_website": PROFILE}),
        (None, {"email": "old@example.com", "name": "Other"}),
    ],
    ids=str,
)
def test_the_users_mapping_goes_before_guesses(columns: dict[str, Any] | None, sent: dict[str, str]):
    fields = {"Email": "old@example.com", "To": EMAIL, "Name": "Other", "First Name": FIRST, "Last Name": LAST}
    prepared = prepare(read_leads([{**fields, "Page": PROFILE, "Blank": ""}], columns=columns), columns=columns)
    assert prepared.leads[0].to_json() == sent


@pytest.mark.parametrize("chosen", ["Email", "email", "EMAIL"])
def test_the_users_mapping_decides_between_two_spellings(chosen: str):
    fields = {"Email": "Email@example.com", "email": "email@example.com", "EMAIL": "EMAIL@example.com"}
    assert single_lead(fields, {"email": chosen}).leads[0].email == f"{chosen}@example.com"


def test_a_mapping_to_columns_that_are_not_there_names_those_that_are():
    with pytest.raises(InvalidLeadsError) as caught:
        prepare(read_leads([{"To": EMAIL, "jane@example.com": 1}]), columns={"email": "To", "title": "Role"})
    assert "columns names 'Role', which leads does not have. Its columns are 'To', (an email" in caught.value.message


@pytest.mark.parametrize(
    "columns", ["Email", {"mail": "x"}, {"email": 7}, {"email": ["a", 7]}, {"email": " "}, {1: "x"}]
)
def test_a_wrong_mapping_is_refused(columns: Any):
    with pytest.raises(ConfigurationError, match="columns"):
        check_columns(columns)
