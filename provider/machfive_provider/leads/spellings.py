"""The names that exports give their columns, for each field of the API. docs/leads.md lists the exports.

Names are in lower case, without accents, spaces and punctuation; :func:`plain` writes them so. Of the columns that are
filled in a row, the one named first here is used: the specific name stands before the general.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

__all__ = ["COMPANIONS", "FIRST_NAME", "LAST_NAME", "NAME_PARTICLE", "SPELLINGS", "plain"]

# The comments name the export or language that brought the line.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "email": (
        *("email", "emailaddress", "workemail", "workemailaddress", "businessemail", "businessemailaddress"),
        *("professionalemail", "companyemail", "primaryemail", "contactemail", "contactemailaddress", "leademail"),
        *("personemailwork", "personemail", "personemailother", "personemailhome"),  # Pipedrive
        *("email1value", "email2value", "email3value"),  # Google Contacts
        *("email1address", "email1", "email2address", "email2", "email3address", "email3"),  # Outlook
        *("geschaftlicheemail", "geschaftlicheemailadresse", "emailgeschaftlich", "emailadresse"),  # German
        *("emailprofessionnel", "emailpro", "courrielprofessionnel", "adresseemail", "adressemail"),  # French
        *("adresseelectronique", "adressedemessagerie", "courriel"),  # French
        *("correoelectronicodeltrabajo", "correoelectronico", "direcciondecorreoelectronico"),  # Spanish
        *("direcciondecorreo", "correo"),  # Spanish
        *("emailcomercial", "emailcorporativo", "enderecodeemail", "enderecodecorreioeletronico"),  # Portuguese
        *("correioeletronico", "correioeletronico1"),  # Portuguese
        *("zakelijkeemail", "zakelijkemailadres", "zakelijkeemailadres", "emailadres"),  # Dutch
        *("secondaryemail", "supplementalemail"),  # Apollo, ZoomInfo
        *("mailadresse", "mailadres", "mail"),
    ),
    "name": (
        *("fullname", "name", "contactname", "contactfullname", "personname", "leadname", "customername"),
        *("vollstandigername", "vollername", "kontaktname", "ansprechpartner"),  # German
        *("nomcomplet", "nom"),  # French
        *("nombrecompleto", "nombreyapellidos", "nombre"),  # Spanish
        *("nomecompleto", "nome"),  # Portuguese
        *("volledigenaam", "contactpersoon", "naam"),  # Dutch
    ),
    "title": (
        *("jobtitle", "contacttitle", "persontitle", "personjobtitle", "currentjobtitle", "currenttitle"),
        *("organizationtitle", "organization1title"),  # Google Contacts
        *("jobposition", "currentposition", "jobrole", "position"),
        *("berufsbezeichnung", "stellenbezeichnung", "jobbezeichnung", "jobtitel", "funktion", "beruf"),  # German
        *("intituleduposte", "intituledeposte", "titreduposte", "poste", "fonction"),  # French
        *("puestodetrabajo", "titulodelpuesto", "puesto", "cargo"),  # Spanish, Portuguese
        *("funcao",),  # Portuguese
        *("functietitel", "functienaam", "functie"),  # Dutch
        *("role", "title"),
    ),
    "company": (
        *("companyname", "company", "organizationname", "organisationname", "accountname", "companyaccount"),
        *("currentcompany", "associatedcompany", "primaryassociatedcompany", "businessname", "companynameforemails"),
        *("organization1name", "personorganization", "personorganisation", "leadorganization"),  # Google, Pipedrive
        *("organization", "organisation", "employer"),
        *("firmenname", "unternehmensname", "firma", "unternehmen"),  # German
        *("nomdelentreprise", "nomdelasociete", "raisonsociale", "entreprise", "societe"),  # French
        *("nombredelaempresa", "razonsocial", "empresa", "compania", "organizacion"),  # Spanish
        *("nomedaempresa", "razaosocial", "companhia", "organizacao"),  # Portuguese
        *("bedrijfsnaam", "organisatienaam", "bedrijf", "organisatie"),  # Dutch
        *("account",),
    ),
    "company_website": (
        *("companywebsite", "companywebsiteurl", "companyurl", "companydomain", "companydomainname"),
        *("organizationwebsite", "organizationdomain", "accountwebsite"),
        *("websiteurl", "website", "webpage", "homepage", "website1value"),
        *("firmenwebsite", "unternehmenswebsite", "firmenwebseite", "webseite", "internetseite"),  # German
        *("sitewebdelentreprise", "siteweb", "siteinternet", "pageweb"),  # French
        *("sitioweb", "paginaweb"),  # Spanish
        *("sitedaempresa", "paginadaweb", "site"),  # Portuguese
        *("bedrijfswebsite", "websitebedrijf", "webpagina"),  # Dutch
        *("web", "domainname", "domain", "domaine", "dominio", "domein", "url"),
    ),
    "linkedin_url": (
        *("personlinkedinurl", "personlinkedin", "contactlinkedinurl", "linkedincontactprofileurl"),
        *("linkedinprofileurl", "linkedinurl", "linkedinprofile", "linkedinmemberprofile", "hslinkedinurl"),
        *("linkedinlink", "linkedinprofil", "perfillinkedin", "perfildelinkedin", "linkedinprofiel"),
        *("linkedin", "publicprofileurl", "profileurl"),
    ),
}
FIRST_NAME = (
    *("firstname", "givenname", "forename", "fname", "personfirstname", "contactfirstname"),
    *("vorname", "rufname", "prenom", "primernombre", "primeironome", "voornaam"),
)
LAST_NAME = (
    *("lastname", "surname", "familyname", "lname", "personlastname", "contactlastname"),
    *("nachname", "familienname", "zuname", "nomdefamille", "apellidos", "apellido"),
    *("sobrenome", "apelido", "ultimonome", "achternaam", "familienaam"),
)
NAME_PARTICLE = "tussenvoegsel"  # the Dutch "van der", between first and last name

# Beside the first word as a column, the second is the other half of the name and no whole name.
COMPANIONS = (
    *(("vorname", "name"), ("prenom", "nom"), ("voornaam", "naam")),
    *(("apellidos", "nombre"), ("apellido", "nombre"), ("sobrenome", "nome"), ("apelido", "nome")),
)


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """Return a column's name as the table above writes it."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", name.casefold()))
